"""What the tests of the emulated driver expect: success, a named error, the output of a fresh process."""

import os
import subprocess
import sys

from cuda.bindings import driver as drv

RUN = os.environ["PTXEMU_RUN"]
HERE = os.path.dirname(os.path.abspath(__file__))


def check(answer):
    """The results of a driver call, which must succeed: one value, or a tuple of several."""
    status, *results = answer
    assert status == drv.CUresult.CUDA_SUCCESS, status
    return results[0] if len(results) == 1 else tuple(results)


def status(answer):
    """The name of a driver call's error, as in 'OUT_OF_MEMORY'."""
    return answer[0].name.removeprefix("CUDA_ERROR_").removeprefix("CUDA_")


def raises(name, fn, *args):
    """fn must fail with the CUDA error of that name."""
    try:
        fn(*args)
    except Exception as e:
        assert name in str(e), repr(e)
        return
    raise AssertionError(f"no {name}")


def script(code, **env):
    """Run a program that may import these modules in a fresh emulated process; returns its output."""
    code = f"import sys; sys.path.insert(0, {HERE!r})\n{code}"
    p = subprocess.run(
        [RUN, sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    return p.stdout + p.stderr
