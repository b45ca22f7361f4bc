"""An endpoint of OpenAI's API that answers each call after 50 ms; prints its port, ends with its standard input.

python -m benchmarks.server
"""

import asyncio
import json
import sys
import time

from aiohttp import web

LATENCY_S = 0.05
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "word " * 50}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 50, "total_tokens": 110},
    }
).encode()


moments: list[float] = []


async def answer(request: web.BaseRequest) -> web.Response:
    """Answer any call."""
    if request.method == "GET":
        span_s = max(moments) - min(moments) if moments else 0.0
        moments.clear()
        return web.json_response({"span_s": span_s})
    moments.append(time.perf_counter())
    await request.read()
    await asyncio.sleep(LATENCY_S)
    moments.append(time.perf_counter())
    return web.Response(body=ANSWER, content_type="application/json")


async def serve() -> None:
    """Listen on a free port of the loopback until the standard input ends."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
