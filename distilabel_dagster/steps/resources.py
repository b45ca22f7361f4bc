"""What a step asks of the machine."""

from pydantic import Field, PositiveInt

from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin


class StepResources(RuntimeParametersMixin):
    """What a step asks of the machine; none of it is part of the step's signature.

    Attributes:
        replicas: worker processes that run the step side by side. 1 runs it in a thread of the main process.
            Only ordinary steps may have more; rows keep their order.
        cpus: processors per replica, for executors that can place work.
        gpus: GPUs per replica, for executors that can place work.
        memory: bytes per replica, for executors that can place work.
        resources: names of other resources -> amount per replica.
    """

    replicas: RuntimeParameter[PositiveInt] = Field(
        default=1, description="Worker processes that run the step."
    )
    cpus: RuntimeParameter[float] | None = Field(default=None, description="Processors per replica.")
    gpus: RuntimeParameter[float] | None = Field(default=None, description="GPUs per replica.")
    memory: RuntimeParameter[int] | None = Field(default=None, description="Bytes of memory per replica.")
    resources: RuntimeParameter[dict[str, int]] | None = Field(
        default=None, description="Other resources per replica: name and amount."
    )
