"""A process that is paused in the middle of calls, and goes on long after their time is over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.llm_server.client import LLMServer

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 3.0
CALLER = """
import json, sys
from distilabel_dagster.models import OpenAILLM

llm = OpenAILLM(model="tiny", base_url=sys.argv[1], api_key="sk-made-up-for-tests", timeout_s=float(sys.argv[2]))
llm.load()
outputs = llm.generate_outputs([[{"role": "user", "content": f"question {n}"}] for n in range(8)])
print(json.dumps([output["generations"] for output in outputs]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_answers_that_came_during_a_pause_are_not_asked_for_again(tmp_path: Path) -> None:
    with LLMServer(tmp_path, answer="upper", latency_s=1.0) as server:
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, server.url, str(TIMEOUT_S)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            server.wait_for(lambda state: state["in_flight"] == 8)
            os.kill(caller.pid, signal.SIGSTOP)
            server.wait_until_idle()
            time.sleep(TIMEOUT_S + 0.5)
            os.kill(caller.pid, signal.SIGCONT)
            told, _ = caller.communicate(timeout=120)
        finally:
            if caller.poll() is None:
                caller.kill()
                caller.communicate()
        assert json.loads(told) == [[f"QUESTION {number}"] for number in range(8)]
        assert server.count() == 8
