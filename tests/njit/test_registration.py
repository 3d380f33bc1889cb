"""Numba knows the operations in whatever order things are imported, and who does not use them pays nothing."""

import subprocess
import sys

import pytest

USE = """
import numpy as np
x, w = np.ones((2, 3)), np.ones((3, 4))
assert use(x, w).tolist() == [[3.0] * 4] * 2
"""

# How a program comes to call gd.linear inside of a compiled function.
ORDERS = {
    "gdkernels before Numba": """
        import gdkernels as gd
        from numba import njit
        use = njit(lambda x, w: gd.linear(x, w))
        """,
    "Numba before gdkernels": """
        from numba import njit
        import gdkernels as gd
        use = njit(lambda x, w: gd.linear(x, w))
        """,
    "used from Python first": """
        import gdkernels as gd
        import numpy as np
        gd.linear(np.ones((2, 3)), np.ones((3, 4)))
        from numba import njit
        use = njit(lambda x, w: gd.linear(x, w))
        """,
    "the name alone, before Numba": """
        from gdkernels import linear
        from numba import njit
        use = njit(lambda x, w: linear(x, w))
        """,
    "the name alone, when something was compiled": """
        from numba import njit
        njit(lambda: 1)()
        from gdkernels import linear
        use = njit(lambda x, w: linear(x, w))
        """,
    "the module, when something was compiled": """
        from numba import njit
        njit(lambda: 1)()
        import gdkernels.ops.linear as layers
        use = njit(lambda x, w: layers.linear(x, w))
        """,
    "the module alone": """
        import gdkernels.ops.linear
        from numba import njit
        use = njit(lambda x, w: gdkernels.ops.linear.linear(x, w))
        """,
    "with types that are declared": """
        from numba import njit
        import gdkernels as gd
        use = njit("f8[:, ::1](f8[:, ::1], f8[:, ::1])")(lambda x, w: gd.linear(x, w))
        """,
}


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dedented(text):
    return "\n".join(line.strip() for line in text.splitlines())


@pytest.mark.parametrize(
    "order", [pytest.param(one, marks=[pytest.mark.slow] * (place > 1)) for place, one in enumerate(ORDERS)]
)
def test_any_order_of_imports(order):
    run(dedented(ORDERS[order]) + USE)


def test_who_uses_numba_alone_imports_no_operation():
    loaded = run("""
import numba, sys
numba.njit(lambda x: x + 1)(1)
print(*[name for name in sys.modules if name.startswith("gdkernels")])
""").split()
    assert set(loaded) <= {"gdkernels", "gdkernels.njit"}
