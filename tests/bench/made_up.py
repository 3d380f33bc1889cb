"""Results of a run of `python -m bench` that never was: as its sections write them, with made-up numbers."""

from itertools import product

CONTESTANTS = {
    "gdkernels": 1.0, "gdkernels step": 1.3, "torch eager": 4.0, "torch compile": 2.1, "jax jit": 1.9, "jax scan": 1.6,
    "tinygrad": 12.0, "scikit-learn": 6.0,
}  # fmt: skip
CASES = {"a": 20.0, "b": 210.0, "c": 9000.0, "d": 25.0, "e": 60000.0}  # microseconds


def around(value: float, width: float = 0.02) -> dict[str, float]:
    """A spread."""
    return {"median": value, "low": value * (1 - width), "high": value * (1 + width)}


def timed(contestant: str, microseconds: float, **names) -> dict:
    """What the rows of training and growth have in common."""
    row = {**names, "contestant": contestant, "steps_per_second": around(1e6 / microseconds),
           "microseconds": microseconds, "thrown_away": 1, "dirty": 0, "rounds": 7,
           "compared": "losses", "error": 1e-6, "tolerance": 1e-4, "ok": True}  # fmt: skip
    if contestant in CONTESTANTS and contestant != "gdkernels":
        row["ratio"] = around(CONTESTANTS[contestant])
    return row


def training() -> list[dict]:
    return [
        timed(name, CASES[case] * slow / threads**0.8, case=case, threads=threads)
        | {"share_of_limit": around(0.7 / slow)}
        for case, threads, (name, slow) in product(CASES, (1, 2), CONTESTANTS.items())
    ]


def kernel(op, shape, form, threads, contestant, rate, unit, **more) -> dict:
    row = {"kernel": op, "shape": list(shape), "form": form, "threads": threads, "contestant": contestant, "unit": unit,
           "rate": around(rate), "microseconds": 10.0, "limit": "fma" if op == "gemm" else "copy", "thrown_away": 0,
           "dirty": 0}  # fmt: skip
    return row | more


def kernels() -> list[dict]:
    found = []
    items = [("gemm", (m, 256, 784), form, 25.0 + m / 64, "GFLOP/s", 100.0)
             for m, form in product(range(64, 832, 64), ("NN", "TN", "NT"))]  # fmt: skip
    items += [
        ("relu", (256, 256), "in cache", 0.125, "GB/s", 90.0),
        ("relu", (32768, 1024), "out of cache", 0.125, "GB/s", 20.0),
    ]
    for (op, shape, form, intensity, unit, limit), threads in product(items, (1, 2)):
        rate = 0.9 * limit * threads
        flops = 1e9 * rate * (1 if op == "gemm" else intensity)
        right = {"what": "out", "error": 1e-7, "bound": 1e-6, "ok": True}
        placed = {"intensity": intensity, "flops_per_second": flops}
        found += [
            kernel(op, shape, form, threads, "gdkernels", rate, unit, share_of_limit=around(0.9), **placed, **right),
            kernel(op, shape, form, threads, "gdkernels from Python", 0.99 * rate, unit, share_of_limit=around(0.89),
                   ratio=around(1.01), **placed, **right),
            kernel(op, shape, form, threads, "torch", rate / 2, unit, share_of_limit=around(0.45), ratio=around(2.0),
                   **placed, **right),
            kernel(op, shape, form, threads, "limit", limit * threads, unit),
        ]  # fmt: skip
    return found


def calls() -> list[dict]:
    """Softmax is faster than both peers at its larger size, within 0.7 µs of PyTorch's at the smaller one."""
    right = {"what": "out", "error": 1e-7, "bound": 1e-6, "ok": True, "thrown_away": 0, "dirty": 0}
    found = [{"operation": "nothing", "shape": [], "form": "", "threads": 1, "contestant": "Python",
              "seconds": around(2e-8), "microseconds": 0.02, "thrown_away": 0, "dirty": 0}]  # fmt: skip
    for shape, form, times in (([1, 10], "given", 0.8), ([32, 10], "given", 1.5)):
        for name, microseconds in (("gdkernels", 2.0), ("numpy", 6.0), ("torch", 2.0 * times)):
            row = {"operation": "softmax", "shape": shape, "form": form, "threads": 1, "contestant": name,
                   "seconds": around(1e-6 * microseconds), "microseconds": microseconds, **right}  # fmt: skip
            if name == "gdkernels":
                row |= {"best": "torch", "of_best": around(times), "longer": around(2.0 - 2.0 * times), "allowed": 0.7,
                        "slower": False, "always": False, "beyond_kernel": around(1.2)}  # fmt: skip
            else:
                row["ratio"] = around(microseconds / 2)
            found.append(row)
    loops = (("gdkernels", 40.0), ("numpy", 120.0), ("torch eager", 300.0))
    for name, microseconds in loops:
        found.append(timed(name, microseconds, case="a", threads=1))
        if name != "gdkernels":
            found[-1]["ratio"] = around(microseconds / 40)
    return found


def growth() -> list[dict]:
    found = []
    for axis, values in (
        ("batch", (8, 32, 128, 512)),
        ("width", (64, 256, 1024)),
        ("depth", (1, 2, 4, 8, 16)),
    ):
        for value, (name, slow) in product(values, CONTESTANTS.items()):
            found.append(timed(name, (5 + value) * slow, axis=axis, value=value, threads=2))
    for threads, (name, slow) in product((1, 2), CONTESTANTS.items()):
        found.append(timed(name, 500 * slow / threads, axis="threads", value=threads, threads=threads))
    return found


def startup() -> list[dict]:
    return [
        {"what": "import", "contestant": "gdkernels", "seconds": around(0.4), "repeats": 5},
        {"what": "installed size", "contestant": "gdkernels", "bytes": around(2e8, 0), "repeats": 1},
    ]


def limits() -> list[dict]:
    found = [{"limit": "fma", "threads": threads, "bytes": 0, "unit": "GFLOP/s", "rate": around(100.0 * threads)}
             for threads in (1, 2)]  # fmt: skip
    for op, threads, size in product(("copy", "update"), (1, 2), (16 << 10, 256 << 20)):
        rate = around((90.0 if size < 1 << 20 else 20.0) * threads)
        found.append({"limit": op, "threads": threads, "bytes": size, "unit": "GB/s", "rate": rate})
    return found


def contention() -> list[dict]:
    return [
        {"case": "a", "threads": 2, "contestant": name, "quiet": around(50000.0), "contended": around(20000.0, 0.3),
         "share_of_quiet": 0.4, "thrown_away": 0, "dirty": 0, "ok": True}
        for name in ("gdkernels", "torch eager")
    ]  # fmt: skip


def costs() -> list[dict]:
    return [
        {"operation": "softmax", "contestant": "gdkernels", "table": 0.8, "nanoseconds": around(0.4, 0.5), "ratio": 0.5,
         "moved": False, "kinds": {"softmax of 10": 0.6, "softmax of 256": 0.2}},
        {"operation": "mse", "contestant": "gdkernels", "table": 0.2, "nanoseconds": around(0.5, 0), "ratio": 2.5,
         "moved": True, "kinds": {"mse": 0.5}},
    ]  # fmt: skip


def njit() -> list[dict]:
    return [
        {"case": "a", "threads": 1, "contestant": name, "steps_per_second": around(1e6 / micro), "microseconds": micro,
         "rounds": 3, "thrown_away": 0, "dirty": 0, "ok": True, "compared": "losses", "error": 0.0, "tolerance": 1.0,
         **({} if name == "gdkernels" else {"ratio": around(micro / 20.0)})}
        for name, micro in (("gdkernels", 20.0), ("gdkernels view", 18.0), ("torch eager", 300.0))
    ]  # fmt: skip


def results() -> dict:
    made = {
        "limits": limits(),
        "contention": contention(),
        "training": training(),
        "kernels": kernels(),
        "calls": calls(),
        "njit": njit(),
        "growth": growth(),
        "startup": startup(),
        "costs": costs(),
    }
    sections = {name: {"rows": rows, "failed": [], "cut": []} for name, rows in made.items()}
    return {"machine": {"cpu": "none"}, "options": {}, "sections": sections}
