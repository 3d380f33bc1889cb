"""Verify and measure the CUDA backend on a machine with a GPU, by one command: ``python -m bench.gpu``.

`__main__` runs the sections one after the other, each in a process of its own (`conductor`, `worker`), so that a kernel
that faults, or never ends, takes nobody with it. A section is a module with a function ``items(lab)``: (name, function)
pairs, whose functions yield rows, which are dicts (`rows`). `lab` gives memory, comparisons and a `clock`. On an emulated
GPU the shapes are tiny and nobody looks at a clock.
"""

# Sections in their order, and their shares of the time.
SECTIONS = {
    "verification": 30,
    "limits": 4,
    "kernels": 18,
    "gemm": 24,
    "launches": 3,
    "device": 8,
    "training": 26,
    "tilings": 24,
}
USUAL = tuple(name for name in SECTIONS if name != "tilings")  # tilings only where they are asked for
