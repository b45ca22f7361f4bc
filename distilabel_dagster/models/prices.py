"""What calls cost, by a table that others keep up to date and that comes with its package (extra `prices`).

Nothing is downloaded: the table is the installed one, and a newer one comes with an upgrade of `genai-prices`.
"""

import datetime as dt
import ipaddress
import time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

_PER_MILLION: Final = 1_000_000
_PRICES_HOLD_S: Final = 600
_ENDINGS_OF_LOCAL_NAMES: Final = (".internal", ".lan", ".local", ".localhost")


def estimate_cost_usd(model: str, base_url: str, input_tokens: int, output_tokens: int) -> float | None:
    """Give what a call costs in US dollars at the provider's list price of today.

    It's an estimate: discounts for cached input, batches or contracts aren't known.

    Args:
        model: the model's name at the provider.
        base_url: the endpoint, by which the provider is known.
        input_tokens: tokens that the model read.
        output_tokens: tokens that it wrote.

    Returns:
        None, and never a guess, where the extra isn't installed, the endpoint is local or of no known provider, or the
        table has no model of exactly this name with a price for such tokens.
    """
    listed = _find_price(model, base_url, int(time.time() // _PRICES_HOLD_S))
    if listed is None:
        return None
    rates = [(listed.input_mtok, input_tokens), (listed.output_mtok, output_tokens)]
    if any(tokens and rate is None for rate, tokens in rates):
        return None
    if listed.requests_kcount is None and all(rate is None or isinstance(rate, Decimal) for rate, _ in rates):
        return sum(float(rate) * tokens for rate, tokens in rates if rate is not None) / _PER_MILLION
    # By the size of the request, or with a price per request.
    from genai_prices import Usage

    used = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return float(listed.calc_price(used)["total_price"])


@lru_cache(maxsize=256)
def _find_price(model: str, base_url: str, when: int) -> Any | None:
    """Find the prices of a model, which may depend on the time of day; None where the table has none of them.

    Args:
        model: its name.
        base_url: its endpoint.
        when: the time, as a number of spans of `_PRICES_HOLD_S`: what was found in one is looked up again in the next.
    """
    if is_local(base_url):
        return None
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    try:
        at = dt.datetime.fromtimestamp(when * _PRICES_HOLD_S, tz=dt.timezone.utc)
        found = calc_price(
            Usage(input_tokens=1), model, provider_api_url=base_url, genai_request_timestamp=at
        )
    except (LookupError, ValueError):
        return None
    return found.model_price if _is_named(found.model, model) else None


def is_local(base_url: str) -> bool:
    """Tell whether an endpoint is on this machine or in a private network: calls of it are nobody's price."""
    host = urlsplit(base_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot is one of the own network.
        return "." not in host or host.endswith(_ENDINGS_OF_LOCAL_NAMES)
    return address.is_private or address.is_loopback or address.is_link_local or address.is_unspecified


def _is_named(entry: Any, model: str) -> bool:
    """Tell whether the table names the model, rather than matching it by how its name begins or what is in it."""
    name = model.lower()
    return entry.id.lower() == name or _names(entry.match, name)


def _names(clause: Any, name: str) -> bool:
    if any(_names(each, name) for each in getattr(clause, "or_", ())):
        return True
    pattern = getattr(clause, "regex", None)
    if pattern is not None:
        # A name followed by a date, of any day, is still that name.
        return (
            pattern.startswith("^")
            and pattern.endswith("$")
            and ".*" not in pattern
            and clause.is_match(name)
        )
    return str(getattr(clause, "equals", "")).lower() == name
