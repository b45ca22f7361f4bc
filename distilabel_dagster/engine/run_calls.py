"""What a run needs for its calls: the ledger, the limits and the counters, from the run's start to its end."""

import uuid
from collections.abc import Callable
from typing import Any

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.budget import Budget
from distilabel_dagster.engine.endpoints import Endpoints, OwnRates, Rates
from distilabel_dagster.engine.generation import Generation
from distilabel_dagster.engine.ledger_io import LedgerIO
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.engine.tally import Tally
from distilabel_dagster.engine.worker import find_models
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.ledger.rates import RateLimits
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import add_up, read_usage
from distilabel_dagster.models.model import RemoteModel


class RunCalls:
    """The calls of one run.

    Args:
        dag: the pipeline's graph.
        steps: the steps of the run.
        cache: where the pipeline's outputs are.
        options: how the run goes.
        open_ledger: opens the ledger of responses.
    """

    def __init__(
        self,
        dag: DAG,
        steps: list[str],
        cache: PipelineCache,
        options: RunOptions,
        open_ledger: Callable[[], ResponseLedger | None],
    ) -> None:
        self._dag = dag
        self._steps = steps
        self._cache = cache
        self._options = options
        self._io = LedgerIO(open_ledger)
        self._spent = 0.0, 0
        self._ledger: ResponseLedger | None = None
        self._generation: Generation | None = None
        self._is_stopped = False

    def step_key(self, name: str) -> str:
        """What the ledger counts a step's calls under: its directory's name."""
        return layout.step_dir(name, self._cache.step_signatures[name]).rpartition("/")[2]

    def prepare(self) -> dict[str, Tally]:
        """Open the ledger, where a step has a model, and read what its calls came to before; no call is made.

        Raises:
            PipelineDefinitionError: cost is to be limited, and a model has no price.
            CacheError: the ledger can't be opened or read.
        """
        models = {name: find_models(self._dag.steps[name]) for name in self._steps}
        if self._options.max_cost_usd is not None:
            self._check_prices(models)
        if not any(models.values()):
            return {name: Tally() for name in self._steps}
        self._ledger = self._io.open()
        if self._ledger is None:
            return {name: Tally() for name in self._steps}
        engine = self._ledger.engine
        spent = add_up(read_usage(engine, partition=self._cache.signature).values())
        self._spent = spent.cost_usd, spent.calls - spent.calls_without_price
        return {
            name: Tally(
                add_up(read_usage(engine, step_key=self.step_key(name)).values()) if models[name] else None
            )
            for name in self._steps
        }

    def _check_prices(self, models: dict[str, list[Any]]) -> None:
        for name, found in models.items():
            for model in found:
                if isinstance(model, RemoteModel) and model.cost_usd(1, 1) is None:
                    raise PipelineDefinitionError(
                        f"`max_cost_usd` is set, but the price of model `{model.model_name}` of step `{name}` isn't "
                        "known. Install the extra `prices`, or set `input_price_usd_per_million` and "
                        "`output_price_usd_per_million` on the model."
                    )

    def start(self) -> Generation:
        """Give the run's calls; in the event loop, always the same."""
        if self._generation is None:
            remote = [
                model
                for name in self._steps
                for model in find_models(self._dag.steps[name])
                if isinstance(model, RemoteModel)
            ]
            rates: Rates = RateLimits(self._ledger.engine) if self._ledger is not None else OwnRates()
            self._generation = Generation(
                self._io,
                Endpoints(remote, rates, self._io.run),
                Budget(self._options.max_cost_usd, *self._spent),
                partition=self._cache.signature,
                run_id=self._options.run_id or uuid.uuid4().hex,
            )
            if self._is_stopped:
                self._generation.stop()
        return self._generation

    def stop(self) -> None:
        """Make no call any more."""
        self._is_stopped = True
        if self._generation is not None:
            self._generation.stop()
