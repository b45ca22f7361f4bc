"""The ways in which a call can fail."""

import random
from dataclasses import dataclass
from typing import Final

from tests.llm_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failure that is an HTTP answer in OpenAI's form."""

    status: int
    message: str
    code: str | None = None


REFUSALS: Final[dict[str, Refusal]] = {
    "rate_limit": Refusal(429, "Rate limit reached for requests. Please slow down.", "rate_limit_exceeded"),
    "quota": Refusal(429, "You exceeded your current quota, please check your plan.", "insufficient_quota"),
    "server_error": Refusal(500, "The server had an error while processing your request."),
    "unavailable": Refusal(503, "The server is overloaded."),
    "unauthorized": Refusal(401, "Incorrect API key provided: {key}.", "invalid_api_key"),
    "forbidden": Refusal(403, "This key may not use the model."),
    "not_found": Refusal(404, "The model `{model}` does not exist.", "model_not_found"),
    "context_length": Refusal(
        400,
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
        "context_length_exceeded",
    ),
    "bad_request": Refusal(400, "Unsupported value: 'temperature'."),
}
BROKEN: Final = frozenset(
    {
        "hang",  # no byte is ever sent
        "stalled",  # headers and half of the body are sent, and then nothing
        "truncated",  # a whole HTTP answer, whose JSON ends in the middle
        "cut_off",  # the connection ends in the middle of the body
        "reset",  # the connection ends without a byte
        "html",  # a proxy's page
        "no_choices",  # JSON, but of another form
    }
)
KINDS: Final = frozenset(REFUSALS) | BROKEN


def choose_failure(number: int, body: bytes, settings: Settings) -> str | None:
    """Say how the `number`-th call to arrive fails; None if it's answered."""
    if settings.broken_after is not None and number > settings.broken_after:
        return settings.broken_kind
    for mark, kind in settings.marked.items():
        if mark.encode() in body:
            return kind
    if not settings.failures:
        return None
    drawn = random.Random(f"failure {settings.seed} {number}").random()
    for kind, share in settings.failures.items():
        if drawn < share:
            return kind
        drawn -= share
    return None


def draw_latency(number: int, settings: Settings) -> float:
    """Give the seconds that the answer to the `number`-th call takes."""
    if not settings.latency_sigma:
        return settings.latency_s
    spread = random.Random(f"latency {settings.seed} {number}").lognormvariate(0, settings.latency_sigma)
    return settings.latency_s * spread
