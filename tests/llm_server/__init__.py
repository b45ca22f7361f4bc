"""A programmable OpenAI-compatible server on loopback, which counts and logs every call."""

from tests.llm_server.calls import Call, count_most_at_once, measure_ideal_s, measure_quiet_s, measure_span_s
from tests.llm_server.client import LLMServer

__all__ = [
    "Call",
    "LLMServer",
    "count_most_at_once",
    "measure_ideal_s",
    "measure_quiet_s",
    "measure_span_s",
]
