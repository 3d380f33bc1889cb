"""start.py RUN COMMAND [ARG...]: replace this process by COMMAND, with the emulated CUDA driver in its environment.
start.py RUN --check: say what this machine and this Python lack to run CUDA kernels.

Called by `run` with a bare interpreter: standard library only.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ptxemu.build import BuildError, build_dir
from ptxemu.requirements import missing_from_machine, missing_from_python


def prepend(name, value):
    """Put a path before the others in a PATH-like variable, once."""
    others = [x for x in os.environ.get(name, "").split(":") if x and x != value]
    os.environ[name] = ":".join([value, *others])


def check():
    missing = missing_from_machine() + missing_from_python(sys.executable)
    print("\n".join(f"ptxemu: {m}" for m in missing) or f"ptxemu: {sys.executable} can run CUDA kernels here")
    return 1 if missing else 0


def main():
    run, *command = sys.argv[1:]
    if command == ["--check"]:
        sys.exit(check())
    os.environ.pop("PTXEMU_BUILD", None)
    try:
        build = build_dir()
    except (BuildError, OSError) as e:
        sys.exit(f"ptxemu: {e}")
    os.environ.update(PTXEMU_BUILD=build, PTXEMU_RUN=run, PTXEMU_PYTHON=sys.executable)
    prepend("LD_LIBRARY_PATH", build)  # libcuda.so.1
    # Before an installed one is found; a path may have no spaces here.
    prepend("LD_PRELOAD", "libnvJitLink.so.13")
    prepend("PYTHONPATH", build)  # the ptxemu package
    if os.environ.get("PTXEMU_CUPY", "0") != "0":
        prepend("PYTHONPATH", os.path.join(build, "standins"))
    if not (os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")):
        os.environ["CUDA_HOME"] = os.path.join(build, "toolkit")
    try:
        os.execvp(command[0], command)
    except OSError as e:
        sys.exit(f"ptxemu: {command[0]}: {e.strerror}")


main()
