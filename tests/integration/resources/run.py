"""Run as a script: the pipeline by `Pipeline.run`, in `$DISTILABEL_CACHE_DIR`.

python -m tests.integration.resources.run

`$START_FILES` says how many files the process may open from its beginning on.
"""

import os
import resource

if __name__ == "__main__":
    if "START_FILES" in os.environ:
        limit = int(os.environ["START_FILES"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    from tests.integration.resources.pipelines import build

    build().run()
