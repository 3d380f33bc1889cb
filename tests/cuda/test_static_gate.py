"""The static gate: the machine code of every CUDA kernel is within the budgets of gdkernels/cuda/budgets.py.

It needs the wheels of the `test` extra, and neither a GPU nor an emulator. The table that it judges: python -m tools.gate
"""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools.gate import __main__ as command
from tools.gate import judgement, sass

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@pytest.fixture(scope="module", autouse=True)
def _can_compile():
    if reason := judgement.missing():
        pytest.skip(f'static gate: {reason} (pip install "gdkernels[test]", on Linux x86-64)')
    if "PTXEMU_BUILD" in os.environ:
        pytest.skip("static gate: runs outside the emulator, which it does not need")


# The architecture whose PTX the emulator runs, and those for which the same kernels are compiled once more.
TOGETHER = [("sm_80",), pytest.param(("sm_75", "sm_90", "sm_100"), marks=pytest.mark.slow)]
PARTS = 6  # of equal size, for as many workers at a time


def part_of(architectures, part):
    """Every sixth kernel with all its jobs: one pass of the compiler serves all architectures."""
    chosen = [job for job in judgement.jobs() if job.architecture in architectures]
    kernels = list(dict.fromkeys((job.budget, job.kernel, job.storage) for job in chosen))[part::PARTS]
    return [job for job in chosen if (job.budget, job.kernel, job.storage) in kernels]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("architectures", TOGETHER, ids=["sm_80", "others"])
def test_kernels_keep_their_budgets(architectures, part):
    jobs = part_of(architectures, part)
    rows = judgement.measure(jobs, processes=1)
    over = [
        f"{row.kernel} {row.storage} {row.architecture}: {text}" for row in rows for text in row.complaints
    ]
    assert len(rows) == len(jobs) > 0
    assert not over, "\n".join([f"{len(over)} over budget", *over])


def test_every_job_has_its_part():
    from gdkernels.cuda import budgets

    assert set(budgets.ARCHITECTURES) == set(ARCHITECTURES)
    together = [getattr(one, "values", [one])[0] for one in TOGETHER]
    done = [
        job for architectures in together for part in range(PARTS) for job in part_of(architectures, part)
    ]
    assert sorted(done) == sorted(judgement.jobs())
    compiled = {(job.storage, job.architecture) for job in done}
    storages = "float32", "float64", "float16", "bfloat16"
    expected = {(storage, name) for storage in storages for name in ARCHITECTURES}
    assert compiled >= expected - {("bfloat16", "sm_75")}


def unnamed(preparation=""):
    """What `judgement.unnamed` finds in a process of its own: other tests may have made kernels."""
    code = f"from tools.gate.judgement import unnamed\n{preparation}\nprint(*unnamed(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_every_kernel_has_a_budget():
    assert unnamed() == [""], "these have no budget in gdkernels/cuda/budgets.py"


def test_a_kernel_without_a_budget_is_found():
    """Made when its module is imported, or by a function when it is needed."""
    found = unnamed(
        "from gdkernels.cuda import budgets\nfrom gdkernels.cuda.gemm import epilogue\n"
        "budgets.BUDGETS = [one for one in budgets.BUDGETS if one.name not in ('sum by four', 'gemm 64 by one')]\n"
        "epilogue.kernels.cache_clear()"
    )
    assert {"norm_add4 for float32", "norm_add4 for bfloat16"} <= set(found)
    assert "gemm_simt_nn_64x64_identity1 for float32" in found
    assert "what gdkernels.cuda.gemm.epilogue.kernels makes" in found


def test_every_budget_has_kernels():
    from gdkernels.cuda.budgets import BUDGETS

    used = {job.budget for job in judgement.jobs()}
    assert not [budget.name for number, budget in enumerate(BUDGETS) if number not in used]
    assert all(budget.why for budget in BUDGETS)


def test_no_kernel_has_two_budgets_or_the_name_of_another():
    """The cache on disk knows a kernel by its name and storage type."""
    from gdkernels.cuda.budgets import BUDGETS

    held = [
        (kernel.name, storage, id(kernel))
        for budget in BUDGETS
        for kernel in budget.kernels
        for storage in budget.holds_for(kernel)
    ]
    assert not [one for one, count in Counter(held).items() if count > 1]
    assert not [one for one, count in Counter(one[:2] for one in set(held)).items() if count > 1]


# ---------------------------------------------------------------------------------------------- in the user's kernels


def test_kernels_over_arrays_of_numba_know_which_memory_they_read():
    """As a user writes them: no access through generic addresses, no call, nothing spilled, no float64 by accident."""
    from numba import cuda, float32, int64, types

    from gdkernels.cuda import device
    from gdkernels.cuda.runtime.target import entry_of, to_ptx

    mlp, rows = device.Mlp([6, 20, 3], "gelu", "adam"), 16
    vector, matrix = types.Array(float32, 1, "C"), types.Array(float32, 2, "C")

    def by_thread(params, x, y):
        i = cuda.grid(1)
        if i < len(x):
            mlp.predict(params, x[i], y[i])

    def by_block(flat, table, count):
        memory = cuda.shared.array(0, float32, alignment=16)
        size = mlp.size
        params, grads, tile = memory[:size], memory[size : 2 * size], memory[4 * size :]
        m, v = memory[2 * size : 3 * size], memory[3 * size : 4 * size]
        for step in range(count):
            mlp.block_forward(params, tile, rows)
            mlp.block_backward(params, grads, tile, rows)
            mlp.block_update(params, grads, (m, v), table[step])
        flat[cuda.threadIdx.x] = params[cuda.threadIdx.x]

    for kernel, arguments in (
        (by_thread, (vector, matrix, matrix)),
        (by_block, (vector, matrix, int64)),
    ):
        (ptx,) = to_ptx(kernel, arguments, [(8, 0)], 256, 1)
        (code,) = sass.assemble({entry_of(ptx): ptx}, "sm_80").values()
        assert code.count(*judgement.ANYWHERE, *judgement.ATOMICS, *judgement.LOCAL) == 0, kernel.__name__
        assert code.calls() == [] and code.doubles() == 0 and code.spills == 0, kernel.__name__
        assert code.widths("LDG" if kernel is by_thread else "LDS")[16] > 0, kernel.__name__


# ---------------------------------------------------------------------------------------------- the gate refuses


@pytest.fixture
def judge(monkeypatch):
    """The complaints about a kernel of tests/cuda/careless.py on sm_80, where at most this is expected."""
    from gdkernels import cache
    from gdkernels.cuda.budgets import Budget
    from tests.cuda import careless

    # the cache on disk would not notice a change of these kernels: their file does not belong to the package
    monkeypatch.setattr(cache, "load", lambda symbol, target: None)
    monkeypatch.setattr(cache, "save", lambda symbol, target, payload: None)

    def judge(name, storage="float32", **expected):
        kernel = getattr(careless, name)
        budget = Budget("of a test", (kernel,), "to be refused", storages=(storage,), **expected)
        (row,) = judgement.compile_all([(budget, kernel, storage, "sm_80")])
        return list(row.complaints)

    return judge


def test_a_careful_kernel_is_let_through(judge):
    assert judge("careful", loads=0, stores=0, registers=24) == []
    assert judge("careful", "bfloat16", loads=0, stores=0, registers=24) == []


def test_one_pass_of_the_compiler_serves_all_architectures(judge):
    """As each alone, but for the names of variables that Numba numbers."""
    from gdkernels.cuda.budgets import ARCHITECTURES
    from tests.cuda import careless

    capabilities = list(ARCHITECTURES.values())
    together = careless.division_of_indices.ptx_for_each("float32", capabilities)
    alone = [careless.division_of_indices.ptx("float32", one) for one in capabilities]
    assert [re.sub(r"_ZN08NumbaEnv\w+", "", text) for text in together] == [
        re.sub(r"_ZN08NumbaEnv\w+", "", text) for text in alone
    ]
    assert [re.search(r"\.target (\w+)", text).group(1) for text in together] == list(ARCHITECTURES)


def test_too_many_registers_are_refused(judge):
    (complaint,) = judge("careful", registers=8)
    assert complaint.endswith("registers, at most 8 expected")


def test_a_local_array_with_a_computed_index_is_refused(judge):
    (complaint,) = judge("dynamic_local_array")
    assert complaint.startswith("local memory is used: 64 bytes of stack")


def test_spilled_registers_are_refused(judge):
    complaints = judge("too_few_registers", registers=32)
    assert any(text.endswith("bytes of registers are spilled") for text in complaints)


def test_accidental_float64_is_refused(judge):
    for storage in ("float32", "bfloat16"):
        assert "float64 instructions in a kernel for" in "; ".join(judge("accidental_float64", storage))
    assert judge("accidental_float64", "float64") == []


def test_a_call_is_refused(judge):
    (complaint,) = judge("division_of_indices")
    assert complaint.startswith("calls ") and "__cuda_sm20_div_s64" in complaint
    assert judge("division_of_indices", routines=("div_s64",)) == []
    (complaint,) = judge("division_of_indices", "float64")
    assert "div_s64" in complaint


def test_narrow_accesses_are_refused(judge):
    assert judge("four_single_accesses", loads=0, stores=0) == [
        "4 LDG of less than 128 bits, at most 0 expected",
        "no LDG of 128 bits",
        "4 STG of less than 128 bits, at most 0 expected",
        "no STG of 128 bits",
    ]


def test_shared_memory_is_counted(judge):
    assert judge("summed_in_shared_memory", shared=1024) == []
    (complaint,) = judge("summed_in_shared_memory", shared=1000)
    assert complaint == "1024 bytes of shared memory, at most 1000 expected"


def test_a_slow_loop_is_refused(judge):
    (complaint,) = judge("dot_product", hot="FFMA", share=0.88)
    assert complaint.endswith("FFMA in the hot loop, at least 88% expected")


def test_atomics_and_generic_addresses_are_refused():
    from gdkernels.cuda.budgets import Budget
    from tests.cuda import careless

    listing = (
        ".text.k:\n /*0000*/ RED.E.ADD.F32.FTZ.RN [R2], R0 ;\n /*0010*/ LD.E R0, [R2] ;\n /*0020*/ EXIT ;"
    )
    instructions, labels = sass.read_sass(listing)["k"]
    code = sass.Code(8, 0, 0, 0, instructions, labels)
    budget = Budget("of a test", (careless.careful,), "to be refused")
    assert list(judgement.complaints(budget, careless.careful, "float32", "sm_80", code)) == [
        "1 accesses go through generic addresses",
        "1 atomic operations, whose order is not fixed",
    ]


def test_the_table_has_a_line_for_each_group(judge):
    from gdkernels.cuda.budgets import Budget
    from tests.cuda import careless

    both = careless.careful, careless.dot_product
    budget = Budget("of a test", both, "to be shown", hot="FFMA", registers=255)
    rows = judgement.compile_all([(budget, kernel, "float32", "sm_80") for kernel in both])
    most, least = max(row.registers for row in rows), min(row.share for row in rows)
    head, line = command.table(rows, each=False).splitlines()
    assert head.split()[:5] == ["kernels", "storage", "n", "registers", "75/80/90/100"]
    assert line.split()[3:6] == ["float32", "2", f"-/{most}/-/-"]
    assert line.endswith(f"FFMA -/{100 * least:.0f}/-/-")
    assert len(command.table(rows, each=True).splitlines()) == 3
