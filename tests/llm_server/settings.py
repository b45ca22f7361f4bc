"""How the server behaves; everything can be changed while it runs."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's behaviour.

    Attributes:
        answer: "digest" makes a text of the request alone, so that equal requests get equal answers; "sample" makes it
            of how often the very same request has come as well; "upper" gives the last message in upper case.
        honours_schema: answer with JSON that fits the schema where a request has one.
        echoes_key: put the caller's API key into each answer; error bodies of 401 quote it in any case.
        latency_s: how long an answer takes; the median, with a `latency_sigma`.
        latency_sigma: spread of the logarithm of the latency; 0 makes it fixed.
        logged_headers: names of request headers that the log keeps.
        seed: what the latencies and failures are drawn with; the n-th call to arrive always gets the same.
        failures: kind -> the share of calls that fail so. Kinds are those of `failures.py`.
        marked: text -> the kind in which each request fails that contains the text.
        broken_after: arrivals after which every call fails; None for a server that stays up.
        broken_kind: how they fail then.
        retry_after_s: what a 429 asks for; None sends no header.
        retry_after_unit: whether that stands in `retry-after`, in seconds, or in `retry-after-ms`.
    """

    answer: Literal["digest", "sample", "upper"] = "digest"
    honours_schema: bool = True
    echoes_key: bool = False
    latency_s: float = 0.0
    latency_sigma: float = 0.0
    logged_headers: list[str] = field(default_factory=list)
    seed: int = 0
    failures: dict[str, float] = field(default_factory=dict)
    marked: dict[str, str] = field(default_factory=dict)
    broken_after: int | None = None
    broken_kind: str = "server_error"
    retry_after_s: float | None = 0.1
    retry_after_unit: Literal["s", "ms"] = "s"
