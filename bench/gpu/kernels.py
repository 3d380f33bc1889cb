"""Kernels that memory limits, against our copy of as many bytes and against PyTorch.

Each is measured at two sizes: what it moves fits into the cache, and does not. Bytes are the fewest that the formula allows:
every array read or written once. A copy of as many bytes takes turns with it; the ratio to the copy is the share of the
bandwidth. Before, each kernel is held against the reference.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gdkernels.cli.verify import find_reference
from gdkernels.cuda import activation, clip, dropout, norm, optim, softmax
from gdkernels.cuda.engine.program import loss_launches
from gdkernels.cuda.norm_gradients import gradient_launches
from gdkernels.cuda.runtime.jit import Launch
from gdkernels.plan import CrossEntropy, ElementLoss
from gdkernels.scalar.optim import RULES
from reference.rounding import relative_to_largest

from . import rows
from .lab import Lab, bound, deviation, rows_of, willing
from .peers import Work

COLUMNS = 1024
TINY = 12, 64  # rows, columns
CHECKED = 999, COLUMNS
EPS = 1e-5
LR, DECAY = 0.01, 0.01
REFERENCE = find_reference()
OPTIONS = {
    "sgd": {"momentum": 0.9, "nesterov": 0.0},
    "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adamw": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "lion": {"beta1": 0.9, "beta2": 0.99},
}


@dataclass
class Subject:
    """A kernel with its memory.

    launches : what is measured
    size : the fewest bytes that must be moved
    outcome : gives pairs of what was found and what is right, after a run
    roundings : that a result may have seen, in eps, relative to the largest
    peer : makes the same by PyTorch, or None
    """

    launches: list[Launch]
    size: int
    outcome: Callable[[], list[tuple[Any, Any]]]
    roundings: float
    peer: Callable[[], Work] | None


# ---------------------------------------------------------------------------------------------- activations, dropout


def forward(lab: Lab, storage: str, m: int, n: int, kind: str) -> Subject:
    """a = act(z)."""
    z, a = lab.normal((m, n), storage), lab.empty((m, n), storage)
    return Subject(
        activation.forward_launches(storage, kind, z.address, a.address, z.size),
        z.nbytes + a.nbytes,
        lambda: [(a, REFERENCE.activation(z.to_numpy(), kind))],
        relative_to_largest(),
        lab.torch and partial(lab.torch.forward, kind, z),
    )


def backward(lab: Lab, storage: str, m: int, n: int, kind: str) -> Subject:
    """dz = da ⊙ act′ and db = Σ dz."""
    da, saved, dz = lab.normal((m, n), storage), lab.normal((m, n), storage, 1), lab.empty((m, n), storage)
    db = lab.empty((n,), "float32")

    def outcome():
        right = REFERENCE.activation_backward(da.to_numpy(), saved.to_numpy(), kind)
        return [(dz, right), (db, right.sum(0))]

    return Subject(
        activation.sums_launches(
            da.workspace, storage, kind, da=da.address, saved=saved.address, dz=dz.address, db=db.address, rows=m, n=n,
            accumulate=False, sum_storage="float32",
        ),
        3 * da.nbytes + db.nbytes,
        outcome,
        relative_to_largest(m),
        lab.torch and partial(lab.torch.backward, kind, da, saved),
    )  # fmt: skip


def drop(lab: Lab, storage: str, m: int, n: int) -> Subject:
    """y = x / (1 − p) where kept, else 0."""
    p, seed = 0.5, 7
    x, y = lab.normal((m, n), storage), lab.empty((m, n), storage)
    return Subject(
        dropout.launches(
            storage, x=x.address, out=y.address, count=x.size, n=n, p=p, seed=seed, begin=0, samples=0
        ),
        x.nbytes + y.nbytes,
        lambda: [(y, REFERENCE.dropout(x.to_numpy(), p, seed))],
        2,
        lab.torch and partial(lab.torch.dropout, x, p),
    )


# ---------------------------------------------------------------------------------------------- norms


def normalised(lab: Lab, storage: str, m: int, n: int, kind: str, part: str) -> Subject:
    """Of a norm of rows ("layernorm", "rmsnorm") the "forward" pass (y), "dx" (in y), or its parameters' "gradients"."""
    x, y, dy = lab.normal((m, n), storage), lab.empty((m, n), storage), lab.normal((m, n), storage, 1)
    gamma, beta = lab.normal((n,), storage, 2), lab.normal((n,), storage, 3)
    centred = kind == "layernorm"
    stats = lab.empty((m, 2) if centred else (m,), "float32")
    dgamma, dbeta = lab.empty((n,), "float32"), lab.empty((n,), "float32")
    parameters = (gamma, beta) if centred else (gamma,)
    sums = (dgamma, dbeta) if centred else (dgamma,)
    given = {"centred": centred, "x": x.address, "residual": 0, "stats": stats.address, "rows": m, "n": n}
    first = norm.forward_launches(
        storage, **given, gamma=gamma.address, beta=beta.address if centred else 0, out=y.address, eps=EPS
    )
    lab.run(first)  # the other parts read stats

    def outcome():
        host = x.to_numpy(), *(each.to_numpy() for each in parameters)
        right, facts = getattr(REFERENCE, kind)(*host, EPS)
        if part == "forward":
            return [(y, right), (stats, facts)]
        dx, *gradients = getattr(REFERENCE, f"{kind}_backward")(dy.to_numpy(), *host[:2], facts)
        return [(y, dx)] if part == "dx" else list(zip(sums, gradients, strict=True))

    peer = None
    if part == "forward":
        launches, size = first, x.nbytes + y.nbytes + stats.nbytes
        if lab.torch and centred:
            peer = partial(lab.torch.layernorm, x, gamma, beta, EPS)
    elif part == "dx":
        launches = norm.dx_launches(storage, **given, dy=dy.address, gamma=gamma.address, dx=y.address)
        size = 3 * x.nbytes + stats.nbytes
    else:
        launches = gradient_launches(
            x.workspace, storage, **given, dy=dy.address, dgamma=dgamma.address, dbeta=dbeta.address,
            accumulate=False, out_storage="float32",
        )  # fmt: skip
        size = 2 * x.nbytes + stats.nbytes
    if lab.torch and centred and part != "forward":
        wanted = [True, False, False] if part == "dx" else [False, True, True]
        peer = partial(lab.torch.layernorm_backward, dy, x, gamma, beta, EPS, wanted)
    return Subject(launches, size, outcome, relative_to_largest(m if part == "gradients" else n), peer)


# ---------------------------------------------------------------------------------------------- softmax and losses


def softmax_of_rows(lab: Lab, storage: str, m: int, n: int) -> Subject:
    """p = softmax(x)."""
    x, out = lab.normal((m, n), storage), lab.empty((m, n), storage)
    return Subject(
        softmax.launches(storage, x.address, out.address, m, n, False),
        x.nbytes + out.nbytes,
        lambda: [(out, REFERENCE.softmax(x.to_numpy()))],
        relative_to_largest(n),
        lab.torch and partial(lab.torch.softmax, x),
    )


def loss_of_rows(lab: Lab, storage: str, m: int, n: int, kind: str) -> Subject:
    """The loss of each row, and the gradient of their mean."""
    by_label = kind == "softmax_cross_entropy"
    pred, grad = lab.normal((m, n), storage), lab.empty((m, n), storage)
    target = lab.labels(m, n) if by_label else lab.normal((m, n), "float32", 1)
    of_row, scale = lab.empty((m,), "float32"), lab.put(np.array([1.0 / m]), "float32")
    call = CrossEntropy(labels=True) if by_label else ElementLoss(kind)

    def outcome():
        value, slope = getattr(REFERENCE, kind)(pred.to_numpy(), target.to_numpy(), reduction="none")
        return [(of_row, value if by_label else value.sum(1)), (grad, slope / m)]

    peer = lab.torch and partial(lab.torch.cross_entropy if by_label else lab.torch.mse, pred, target)
    return Subject(
        loss_launches(
            call, storage, pred=pred.address, target=target.address, grad=grad.address,
            row_loss=of_row.address, rows=m, n=n, scale=scale.address,
        ),
        pred.nbytes + grad.nbytes + target.nbytes + of_row.nbytes,
        outcome,
        relative_to_largest(n),
        peer,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- parameters


def update(lab: Lab, storage: str, m: int, n: int, name: str) -> Subject:
    """A step of an optimizer on m n parameters. With bfloat16, their copy in bfloat16 is renewed in the same pass."""
    p, g = lab.normal((m, n), "float32"), lab.normal((m, n), "float32", 1)
    states = [lab.normal((m, n), "float32", 2 + i, positive=i > 0) for i in range(len(RULES[name].states))]
    before = [each.to_numpy() for each in (p, *states)] if p.size <= CHECKED[0] * CHECKED[1] else []
    half = lab.empty((m, n), storage) if storage == "bfloat16" else None
    options = [OPTIONS[name][option] for option in RULES[name].options]
    row = lab.put(optim.table(name, options, [DECAY], 0, [LR])[0, 0], "float32")
    places = [each.address for each in states]

    def outcome():
        lr = {"lr": LR, "weight_decay": DECAY, **OPTIONS[name]}
        counted = (1,) if name.startswith("adam") else ()
        right = getattr(REFERENCE, f"{name}_step")(before[0], g.to_numpy(), *before[1:], *counted, **lr)
        found = [(p, right[0]), *zip(states, right[1:], strict=True)]
        return [*found, (half, p.to_numpy())] if half is not None else found

    return Subject(
        optim.update_launches(
            "float32", name, p=p.address, g=g.address, states=places, count=p.size, row=row.address,
            bf16_copy=half.address if half else 0,
        ),
        (3 + 2 * len(states)) * p.nbytes + (half.nbytes if half else 0),
        outcome,
        16,
        partial(lab.torch.optimizer, name, p, g, LR) if lab.torch and name in lab.torch.optimizers else None,
    )  # fmt: skip


def global_norm(lab: Lab, storage: str, m: int, n: int) -> Subject:
    """√Σ g² of m n numbers."""
    g, result = lab.normal((m, n), storage), lab.empty((1,), "float32")
    total = clip.squares_count(g.size)
    partial_sums = lab.empty((3 * total,), "float32")
    launches = clip.squares_launches(storage, g.address, g.size, partial_sums.address, total)
    launches.append(
        clip.norm_of_sums.on(
            storage, (1, 1, 1), partial=partial_sums.address, blocks=total, norm=result.address
        )
    )
    return Subject(
        launches,
        g.nbytes,
        lambda: [(result, [np.linalg.norm(g.to_numpy().astype(np.float64))])],
        64,
        lab.torch and partial(lab.torch.norm, g),
    )


# ---------------------------------------------------------------------------------------------- the section

BOTH = ("float32", "bfloat16")
# what, how it is made, storage types, arrays that it moves
KERNELS: list[tuple[str, Callable[..., Subject], tuple[str, ...], int]] = [
    *((f"{kind} forward", partial(forward, kind=kind), BOTH, 2) for kind in ("relu", "gelu", "tanh")),
    *(
        (f"{kind} backward, bias gradient", partial(backward, kind=kind), BOTH, 3)
        for kind in ("relu", "gelu")
    ),
    *(
        (f"{kind} {part}", partial(normalised, kind=kind, part=part), BOTH, moved)
        for kind in ("layernorm", "rmsnorm")
        for part, moved in (("forward", 2), ("dx", 3), ("gradients", 2))
    ),
    ("softmax", softmax_of_rows, ("float32",), 2),
    ("cross-entropy, gradient", partial(loss_of_rows, kind="softmax_cross_entropy"), BOTH, 2),
    ("mse, gradient", partial(loss_of_rows, kind="mse"), BOTH, 3),
    ("dropout", drop, BOTH, 2),
    *(
        (f"{name} step", partial(update, name=name), ("float32",), 3 + 2 * len(RULES[name].states))
        for name in OPTIONS
    ),
    ("adam step, bfloat16 copy", partial(update, name="adam"), ("bfloat16",), 15),
    ("global norm", global_norm, ("float32",), 1),
]


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """An item for each kernel and storage type; float32 alone where an emulator has to compile them."""
    return [
        (f"{what} {storage}", partial(examine, lab, what, make, storage, moved))
        for what, make, storages, moved in KERNELS
        for storage in (storages[:1] if lab.tiny else storages)
        if storage in lab.kinds
    ]


def examine(
    lab: Lab, what: str, make: Callable[..., Subject], storage: str, moved: int
) -> Iterator[rows.Row]:
    """A row that checks the kernel, and one for each size."""
    m, n = TINY if lab.tiny else CHECKED
    subject = make(lab, storage, m, n)
    lab.run(subject.launches)
    lab.wait()
    error = max(deviation(found.to_numpy(), right) for found, right in subject.outcome())
    yield rows.check(what, storage, f"{m} × {n}", error, bound(storage, subject.roundings))
    for size in lab.sizes.values():
        lab.forget()
        m = rows_of(size, n, moved, storage)
        subject = make(lab, storage, m, n)
        source, target = (lab.empty((subject.size // 8 // 4 * 4,), "float32") for _ in range(2))
        copy = lab.copies(source.address, target.address, source.nbytes)
        contestants = {"gdkernels": partial(lab.run, subject.launches), "copy": partial(lab.run, copy)}
        peers, failures = willing({"torch": subject.peer} if subject.peer else {})
        yield from failures
        samples = lab.clock.compare(contestants | peers, lab.seconds)
        if samples:
            yield rows.measurement(what, storage, f"{m} × {n}", samples, "GB/s", subject.size)
