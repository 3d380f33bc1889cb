"""A contestant's first moments, in a process of its own: ``python -m bench.first REQUEST``, called by `startup`.

REQUEST is JSON: {"contestant": name, "do": "import", "step" or "epoch", "modules": [what "import" imports], "threads": n}.
One line of JSON is written when it is done: {"seconds": of the imports alone, "peak": bytes of memory at most, so far}.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
from pathlib import Path

CASE = "b"


def main() -> None:
    request = json.loads(sys.argv[1])
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)  # what libraries print
        start = time.perf_counter()
        if request["do"] == "import":
            for module in request["modules"]:
                importlib.import_module(module)
        else:
            train(request["contestant"], request["threads"], request["do"] == "epoch")
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak": peak()}), file=channel, flush=True)


def train(contestant: str, threads: int, epoch: bool) -> None:
    """One step of the case, or one epoch."""
    from .worker import confine

    confine(threads)
    from .cases import CASES
    from .contestants import build

    case = CASES[CASE] if epoch else dataclasses.replace(CASES[CASE], batches=1)
    build(contestant, {"kind": "train", "case": dataclasses.asdict(case)}, threads).run(1)


def peak() -> int:
    """Bytes of memory that this process has had at most.

    Linux keeps ru_maxrss across exec, so that a child begins with what its parent had; VmHWM begins anew.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
