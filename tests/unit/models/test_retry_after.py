"""How long an endpoint asks to wait, in all the ways in which it may say so."""

import datetime as dt

import pytest

from distilabel_dagster.models.retry_after import read_duration_s, read_retry_after_s

NOW = dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(
    ("headers", "said", "seconds"),
    [
        ({}, "", None),
        ({"retry-after": "7"}, "", 7),
        ({"retry-after": "0.25"}, "", 0.25),
        ({"retry-after": "-3"}, "", 0),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "20s"}, "", 20),
        ({"retry-after": "Wed, 25 Nov 2026 12:01:30 GMT"}, "", 90),
        ({"retry-after": "Wed, 25 Nov 2026 11:00:00 GMT"}, "", 0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, "", 360),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, "", None),
        (
            {
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "20ms",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
            },
            "",
            1,
        ),
        ({}, "Rate limit reached. Please try again in 6.2s.", 6.2),
        ({}, "Please retry after 10 seconds.", 10),
        ({}, "Please try again in 120ms.", 0.12),
        ({}, "try again in 2 minutes", 120),
        ({}, "try again in a while", None),
        ({"retry-after": "3"}, "Please try again in 6.2s.", 3),
    ],
)
def test_it_is_read(headers: dict[str, str], said: str, seconds: float | None) -> None:
    assert read_retry_after_s(headers, said, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_durations() -> None:
    assert [
        read_duration_s(text) for text in ("1s", "6m0s", "1h2m3.5s", "12ms", "2d", "", "7", "s", "1x")
    ] == [
        1,
        360,
        3723.5,
        0.012,
        172800,
        None,
        None,
        None,
        None,
    ]
