"""Device functions in kernels of numba-cuda: elements, random words, reductions, each against the reference."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reference
from gdkernels.ops.activation import KINDS, saved_for
from gdkernels.scalar.loss import ELEMENT_LOSSES
from gdkernels.scalar.optim import OPTIMIZERS, PLAIN, ROWS, RULES
from reference import bounds
from reference.rounding import GPU, rounded
from tests.cuda.mutation import mutant
from tests.cuda.test_activation import sample
from tests.ops import test_activation as activation_on_cpu
from tests.ops.test_loss import pair
from tests.ops.test_optim import assert_close, problem
from tests.rules import OPTIONS, exact_step
from tests.within import assert_within

pytestmark = pytest.mark.filterwarnings("ignore:Grid size")
pytest.importorskip("numba.cuda", reason="device functions need numba-cuda")

ROOT = Path(__file__).resolve().parents[2]
LR, DECAY, STEP = 0.01, 0.1, 5
LOSS_OPTIONS = {"huber": (0.7,), "binary_cross_entropy": (3.0,)}


def functions():
    """The room of device functions, and numba-cuda."""
    from numba import cuda

    from gdkernels.cuda import device

    return device, cuda


def in_turn(cuda, calls):
    """A device function that writes what each of some functions gives for the same arguments."""
    if not calls:
        return cuda.jit(device=True)(lambda k, out, i, arguments: None)
    first, rest = calls[0], in_turn(cuda, calls[1:])

    @cuda.jit(device=True)
    def run(k, out, i, arguments):
        out[k, i] = first(*arguments)
        rest(k + 1, out, i, arguments)

    return run


# ---------------------------------------------------------------------------------------------- elements


def test_the_room_is_entered_when_it_is_needed():
    code = (
        "import sys, gdkernels as gd\ngd.cuda\nbefore = 'numba' in sys.modules\n"
        "print(before, gd.cuda.device.relu(-1.0), hasattr(gd.cuda, 'devices'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0.0", "False"]


def test_every_name_of_the_tables_is_there():
    room, _ = functions()
    expected = {
        *KINDS, *(f"{kind}_grad" for kind in KINDS), *ELEMENT_LOSSES,
        *(f"{name}_{what}" for name in RULES for what in ("row", "step")),
    }  # fmt: skip
    assert expected <= set(room.__all__)
    assert all(getattr(room, name).__doc__ for name in room.__all__)


def mapped(device, cuda, run, x, count=None):
    """What a function of (first row, out, i, (x[i],)) has written into the rows of `out`."""

    @cuda.jit
    def kernel(x, out):
        i = cuda.grid(1)
        if i < len(x):
            run(0, out, i, (x[i],))

    out = device.empty((count, x.size), x.dtype)
    kernel[-(-x.size // 128), 128](device.put(x).owner, out.owner)
    return out.to_numpy()


@pytest.mark.every_kernel
@pytest.mark.parametrize("half", [0, 1])
def test_activations_and_their_derivatives(device, dtype, half):
    """Floats of every exponent: act of z, and act′ of what gd.saved_for names."""
    room, cuda = functions()
    z = sample(dtype)[::3]
    kinds = KINDS[half::2]
    outputs = mapped(device, cuda, in_turn(cuda, [getattr(room, kind) for kind in kinds]), z, len(kinds))
    for kind, a in zip(kinds, outputs, strict=True):
        activation_on_cpu.assert_forward(z, a, kind, GPU)
    for kind, a in zip(kinds, outputs, strict=True):
        saved = a if saved_for(kind) == "output" else z
        (slope,) = mapped(device, cuda, in_turn(cuda, [getattr(room, f"{kind}_grad")]), saved, 1)
        activation_on_cpu.assert_backward(np.ones_like(z), saved, slope, kind, GPU)


@pytest.mark.every_kernel
@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_losses_and_their_derivatives(device, name, dtype, rng):
    room, cuda = functions()
    pred, target = pair(rng, dtype, (200,))
    options = LOSS_OPTIONS.get(name, ())
    loss, given = getattr(room, name), tuple(np.dtype(dtype).type(option) for option in options)

    @cuda.jit
    def evaluate(pred, target, options, out):
        i = cuda.grid(1)
        if i < len(pred):
            out[0, i], out[1, i] = loss(pred[i], target[i], *options)

    out = device.empty((2, 200), dtype)
    evaluate[2, 128](device.put(pred).owner, device.put(target).owner, given, out.owner)
    value, slope = out.to_numpy()
    named = dict(zip(ELEMENT_LOSSES[name].options, options, strict=True))
    exact, _ = getattr(reference, name)(pred, target, reduction="none", **named)
    _, exact_slope = getattr(reference, name)(pred, target, reduction="sum", **named)
    of_value, of_slope = getattr(bounds, name)(pred, target, "none", on=GPU, **named)
    assert_within(value, exact, of_value, "value")
    assert_within(slope, exact_slope, of_slope, "slope")


def mover(cuda, step, states):
    """A device function that makes a step on element i of p and of its states, which are rows."""

    def without_state(p, g, s, row, i):
        p[i] = step(p[i], g[i], row)

    def with_one(p, g, s, row, i):
        p[i], s[0, i] = step(p[i], g[i], s[0, i], row)

    def with_two(p, g, s, row, i):
        p[i], s[0, i], s[1, i] = step(p[i], g[i], s[0, i], s[1, i], row)

    def with_three(p, g, s, row, i):
        p[i], s[0, i], s[1, i], s[2, i] = step(p[i], g[i], s[0, i], s[1, i], s[2, i], row)

    return cuda.jit(device=True)((without_state, with_one, with_two, with_three)[states])


@pytest.mark.every_kernel
@pytest.mark.parametrize("name", RULES)
def test_steps_of_optimizers(device, name, dtype, rng):
    """By a row from the host, and by one that each thread computes."""
    room, cuda = functions()
    public, options = ("sgd", {}) if name == PLAIN else (name, OPTIONS[name])
    p, g, states = problem(public, (100,), dtype, rng)
    given, count = tuple(map(float, options.values())), len(RULES[name].states)
    make_row, move = getattr(room, f"{name}_row"), mover(cuda, getattr(room, f"{name}_step"), count)

    @cuda.jit
    def update(p, g, states, row):
        i = cuda.grid(1)
        if i < len(p):
            move(p, g, states, row, i)

    @cuda.jit
    def update_alone(p, g, states, options):
        i = cuda.grid(1)
        if i < len(p):
            move(p, g, states, make_row(STEP, LR, DECAY, options), i)

    new = exact_step(public, p, g, states, LR, STEP, weight_decay=DECAY, **options)
    allowed = bounds.step(public, p, g, states, LR, STEP, weight_decay=DECAY, **options)
    for kernel, argument in ((update, make_row(STEP, LR, DECAY, given)), (update_alone, given)):
        there = [device.put(p), device.put(g), device.put(np.stack([*states, g, g, g][:3]))]
        kernel[1, 128](*(each.owner for each in there), argument)
        assert_close(public, (there[0].to_numpy(), *there[2].to_numpy()[: len(states)]), new, allowed)


def test_a_row_has_the_defaults_of_its_rule():
    room, _ = functions()
    for name in OPTIMIZERS:
        rule = RULES[name]
        defaults = tuple(float(option.default) for option in rule.options.values())
        assert getattr(room, f"{name}_row")(3, 1e-3) == ROWS[name](3.0, 1e-3, rule.weight_decay, defaults)


def test_random_words_and_the_mask_of_dropout(device):
    """As Random123's known answers have them, and as gd.dropout drops."""
    room, cuda = functions()

    @cuda.jit
    def draw(seed, first, words, kept):
        i = cuda.grid(1)
        words[i] = room.philox_word(seed, first + i)
        kept[i] = room.is_kept(0.3, seed, first + i)
        if i % 4 == 0:
            block = room.philox_words(seed, first + i)
            for j in range(4):
                words[len(kept) + i + j] = block[j]

    for seed, first in ((5, 0), (-3, 4), (2**40 + 7, 2**34)):
        words, kept = device.empty((256,), np.uint64), device.empty((128,), np.int32)
        draw[1, 128](seed, first, words.owner, kept.owner)
        found = words.to_numpy()
        np.testing.assert_array_equal(found[:128], found[128:])
        mask = reference.dropout_mask((128,), 0.3, seed, first)
        np.testing.assert_array_equal(kept.to_numpy() != 0, mask)
        np.testing.assert_array_equal(found[:128] >= np.uint64(0.3 * 2.0**32), mask)


# ---------------------------------------------------------------------------------------------- reductions


def reduced(device, room, cuda, values, block):
    """(sums, largest) of a warp where the block is one, and of the block twice, as each thread has them."""

    @cuda.jit
    def kernel(values, out):
        i = room.thread_number()
        value = values[i]
        out[0, i] = room.block_sum(value)
        out[1, i] = room.block_max(value)
        out[2, i] = room.block_sum(value * value)
        if room.thread_count() == 32:
            out[3, i], out[4, i] = room.warp_sum(value), room.warp_max(value)

    out = device.empty((5, values.size), values.dtype)
    kernel[1, block](device.put(values).owner, out.owner)
    return out.to_numpy()


@pytest.mark.every_kernel
@pytest.mark.parametrize("block", [(1,), (5,), (32,), (33,), (64,), (256,), (1000,), (8, 6), (3, 5, 7)])
def test_sums_and_largest_numbers_of_a_block(device, dtype, block, rng):
    """The threads all have the same bits, which are those of the fixed order: pairs in a warp, then warp by warp."""
    room, cuda = functions()
    values = rng.standard_normal(int(np.prod(block))).astype(dtype)
    found = reduced(device, room, cuda, values, block)
    for k, (terms, largest) in enumerate(((values, None), (values, values.max()), (values * values, None))):
        assert (found[k] == found[k, 0]).all()
        if largest is not None:
            assert found[k, 0] == largest
            continue
        assert found[k, 0] == in_fixed_order(terms)
        # a term takes part in at most 5 additions in its warp, and in one for each warp
        exact, additions = terms.astype("f8").sum(), 5 + -(-terms.size // 32)
        assert_within(found[k, 0], exact, rounded(np.abs(terms).sum(dtype="f8"), additions / 2 + 0.5))
    if values.size == 32:
        np.testing.assert_array_equal(found[3:], found[:2])


def in_fixed_order(values):
    """Σ as a block adds it: pairs at distance 16, 8, 4, 2, 1 of each warp, and what the warps have in their order."""
    total = None
    for start in range(0, values.size, 32):
        lanes = values[start : start + 32].copy()
        for distance in (16, 8, 4, 2, 1):
            other = lanes[distance : 2 * distance] if lanes.size > distance else lanes[:0]
            lanes[: other.size] += other
        total = lanes[0] if total is None else total + lanes[0]
    return total


def test_the_largest_of_numbers_with_a_nan_is_nan(device):
    room, cuda = functions()
    for place in (0, 40, 99):
        values = np.arange(100, dtype="f4")
        values[place] = np.nan
        assert np.isnan(reduced(device, room, cuda, values, (100,))[1]).all()


BARRIERS = (
    "            cuda.syncthreads()\n            if lane == 0:\n",
    "            cuda.syncthreads()\n            value = memory[0]\n",
)


@pytest.mark.parametrize("barrier", [None, 0, 1])
def test_a_missing_barrier_is_caught(device, barrier):
    """Before a warp's sum is written, which another may still read, and before they are read: by the race detector."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda.device import reductions

    module = reductions
    if barrier is not None:
        text = BARRIERS[barrier]
        module = mutant(reductions, text, text[text.index("\n") + 1 :])

    def kernel(values, out):
        i = module.thread_number()
        out[i] = module.block_sum(values[i]) + module.block_sum(values[i] * values[i])

    values, out = np.full(256, 2, "f4"), np.zeros(256, "f4")
    if barrier is None:
        ptxemu.launch(kernel, None, 1, 256, values, out, race=True)
        assert (out == 6 * 256).all()
    else:
        with pytest.raises(ptxemu.PtxError, match="race"):
            ptxemu.launch(kernel, None, 1, 256, values, out, race=True)


def test_a_wrong_sign_is_caught(device, rng):
    """Of the smaller of two numbers: the largest of a block is another then."""
    from gdkernels.cuda.device import reductions

    room, cuda = functions()
    values = rng.standard_normal(100).astype("f4")
    changed = mutant(reductions, "return a if a > b or a != a else b", "return a if a < b or a != a else b")
    assert (reduced(device, room, cuda, values, (100,))[1] == values.max()).all()
    assert not (reduced(device, changed, cuda, values, (100,))[1] == values.max()).any()
