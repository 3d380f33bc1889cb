"""Measurements: kernels, calls, training and limits of this machine's CPU against the peers (``python -m bench``), and
kernels on a GPU (``python -m bench.gpu``).

`__main__` runs the sections one after the other. A section is a module with ``rows(plan, say)`` (`plan`); it holds
contestants (`contestants`), each in a process of its own (`worker` inside, `process` outside, `cast` for all of them),
against each other in turns (`rounds`), whose times are those of a `clock`, and yields rows, which are dicts (`record`).
"""

# Sections in their order, and their shares of the time.
SECTIONS = {
    "limits": 3,
    "training": 52,
    "kernels": 20,
    "calls": 16,
    "njit": 4,
    "growth": 10,
    "startup": 9,
    "contention": 6,
    "costs": 3,
}
USUAL = tuple(name for name in SECTIONS if name != "costs")  # costs only where they are asked for
