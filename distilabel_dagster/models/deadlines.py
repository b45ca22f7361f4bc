"""A time-out that doesn't throw away what has arrived while the process stood still."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

STALLED_S: Final = 0.25
"""How late the event loop may come to a deadline before it's taken for one that stood still."""

LAST_LOOK_S: Final = 5.0
"""How much longer an answer is waited for then: it's read from the socket in less, if it's there."""

_Made = TypeVar("_Made")


async def within(coroutine: Coroutine[Any, Any, _Made], timeout_s: float | None) -> _Made:
    """Wait for something for so many seconds, and for a moment longer if this process stood still meanwhile.

    A process that is paused (SIGSTOP, a laptop's lid, a debugger) finds, when it goes on, both that its time is over and
    that the answer lies in the socket. Then the answer counts: it's paid for.

    Args:
        coroutine: what is waited for; it has ended when this returns, cancelled if need be.
        timeout_s: None for as long as it takes.

    Raises:
        asyncio.TimeoutError: it's over, and nothing has come.
    """
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    answering = asyncio.ensure_future(coroutine)
    is_over = False
    try:
        await asyncio.wait({answering}, timeout=timeout_s)
        if not answering.done() and loop.time() - begun_at - (timeout_s or 0.0) > STALLED_S:
            await asyncio.wait({answering}, timeout=LAST_LOOK_S)
    finally:
        if not answering.done():
            is_over = answering.cancel()
            await asyncio.wait({answering})
    if is_over and answering.cancelled():
        raise asyncio.TimeoutError
    return answering.result()
