"""How long an endpoint asks to wait: the several ways in which providers say so."""

import datetime as dt
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

_UNITS_S: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_SAID: Final = re.compile(
    r"(?:try again|retry) (?:in|after) (\d+(?:\.\d+)?)\s*(ms|s|m|h|milliseconds?|seconds?|minutes?|hours?)\b",
    re.IGNORECASE,
)
_WORDS: Final = {"millisecond": "ms", "second": "s", "minute": "m", "hour": "h"}
_LIMITED: Final = ("requests", "tokens")


def read_retry_after_s(headers: Mapping[str, str], said: str, now: dt.datetime) -> float | None:
    """Give how many seconds to wait before the next call; None where nothing is said.

    Args:
        headers: of the response, whose names are looked up in lower case. The first of these that says something
            counts: `retry-after-ms`; `retry-after` in seconds or as a date; `x-ratelimit-reset-requests` and
            `-tokens` such as `6m0s`, of what has nothing remaining.
        said: the provider's message, as some say it there only ("Please try again in 1.2s").
        now: the time, with its zone.
    """
    milliseconds = _as_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    for found in (_read_header(headers.get("retry-after"), now), _read_resets(headers), _read_message(said)):
        if found is not None:
            return found
    return None


def _as_number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _read_header(text: str | None, now: dt.datetime) -> float | None:
    seconds = _as_number(text)
    if seconds is not None or not text:
        return seconds
    try:
        until = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return read_duration_s(text)
    if until.tzinfo is None:
        until = until.replace(tzinfo=dt.timezone.utc)
    return max(0.0, (until - now).total_seconds())


def _read_resets(headers: Mapping[str, str]) -> float | None:
    waits = [
        read_duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in _LIMITED
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _read_message(said: str) -> float | None:
    found = _SAID.search(said)
    if found is None:
        return None
    unit = found[2].lower()
    return float(found[1]) * _UNITS_S[_WORDS.get(unit.removesuffix("s"), unit)]


def read_duration_s(text: str) -> float | None:
    """Give the seconds of a duration such as `1s`, `6m0s` or `120ms`; None where it's none."""
    text = text.strip().lower()
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
