"""distilabel 1.5.3 in an environment of its own."""

import subprocess
import sys
from pathlib import Path

_DIRECTORY = Path(__file__).parent / ".peer"
REQUIREMENTS = ("distilabel[openai]==1.5.3", "requests")


def find_python() -> str:
    """The interpreter of the environment, which is made the first time: some minutes."""
    python = _DIRECTORY / "bin" / "python"
    done = _DIRECTORY / ".installed"
    if not done.exists():
        print(f"Installing {' '.join(REQUIREMENTS)} into {_DIRECTORY}; only once.", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_DIRECTORY)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        done.touch()
    return str(python)
