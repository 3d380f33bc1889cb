"""Hashes of what some networks have learned after twenty steps: the same lines from two versions, the same bits.

    python tools/parameter_hashes.py > before.txt        # before a change that is to keep every bit, and after it
    tools/ptxemu/run python tools/parameter_hashes.py    # on the emulated GPU; without tools/ptxemu/run on a real one

Together the networks have every layer, activation, loss and optimizer; on the CPU each is trained with one thread and
with two, which must give the same line. The bits depend on the type of the CPU or GPU and on the version of Numba as well.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import gdkernels as gd

ROWS, BATCH, STEPS = 96, 32, 20
THREADS = 1, 2

Parts = tuple[list[Any], Any, Any, dict[str, Any]]  # layers, loss, optimizer, what else a Trainer takes


def networks() -> Iterator[tuple[str, Parts]]:
    """Name, layers, loss, optimizer and further options of each network."""
    schedules, linear = gd.schedules, gd.Linear
    yield (
        "relu, adamw",
        ([linear(9, 24, "relu"), linear(24, 5)], "softmax_cross_entropy", gd.AdamW(lr=1e-2), {}),
    )
    yield "tanh, adam", (
        [linear(9, 40, "tanh"), linear(40, 5)], gd.SoftmaxCrossEntropy(label_smoothing=0.1, class_weight=[1, 2, 0.5, 1, 3]),
        gd.Adam(lr=1e-2, weight_decay=1e-2), {"clip_norm": 0.5},
    )  # fmt: skip
    yield "layer norm, gelu, sgd", (
        [gd.LayerNorm(9), linear(9, 33, "gelu"), linear(33, 1)], "mse", gd.SGD(lr=1e-2, momentum=0.9, nesterov=True), {},
    )  # fmt: skip
    yield "rms norm, silu, plain sgd", (
        [gd.RMSNorm(9), linear(9, 16, "silu", bias=False), linear(16, 3)], "mse", gd.SGD(lr=1e-2), {"decay": "weights"},
    )  # fmt: skip
    yield "residual, dropout, mish, rmsprop", (
        [linear(9, 20), gd.Residual(gd.LayerNorm(20), linear(20, 20, "mish"), gd.Dropout(0.3)), linear(20, 2)],
        gd.Huber(delta=0.7), gd.RMSProp(lr=1e-3, weight_decay=1e-3), {"clip_norm": 1.0},
    )  # fmt: skip
    yield "residual without norm, softplus, adagrad", (
        [linear(9, 17, "softplus"), gd.Residual(linear(17, 17), gd.Activation("elu")), gd.Dropout(0.1), linear(17, 3)],
        gd.BinaryCrossEntropy(pos_weight=2.0), gd.AdaGrad(lr=1e-2), {"schedule": schedules.Cosine(1e-2, 20)},
    )  # fmt: skip
    yield "sigmoid, amsgrad", (
        [linear(9, 12, "sigmoid"), gd.Activation("leaky_relu"), linear(12, 4)], "mse", gd.AMSGrad(lr=1e-2),
        {"schedule": schedules.WarmupCosine(1e-2, 3, 20)},
    )  # fmt: skip
    yield "gelu_tanh, lion", (
        [linear(9, 31, "gelu_tanh"), gd.Residual(gd.RMSNorm(31), linear(31, 31, "relu")), gd.RMSNorm(31), linear(31, 6)],
        gd.SoftmaxCrossEntropy(ignore_index=2), gd.Lion(lr=1e-3, weight_decay=0.1), {"decay": "weights"},
    )  # fmt: skip
    yield "elu, leaky_relu, adamw, clipped", (
        [linear(9, 19, "elu"), gd.LayerNorm(19), linear(19, 23, "leaky_relu"), linear(23, 1)], "huber",
        gd.AdamW(lr=1e-2, weight_decay=0.1), {"clip_norm": 0.1, "decay": "weights"},
    )  # fmt: skip
    yield (
        "probabilities, adam",
        ([linear(9, 28, "relu"), linear(28, 7)], "probabilities", gd.Adam(lr=1e-2), {}),
    )
    yield "wide, momentum", (
        [linear(9, 300, "relu"), linear(300, 257, "tanh"), linear(257, 10)], "softmax_cross_entropy",
        gd.SGD(lr=1e-2, momentum=0.9, weight_decay=1e-4), {},
    )  # fmt: skip
    yield "scale, selu, log_cosh, nadam", (
        [gd.Scale(9), linear(9, 20, "selu"), gd.Residual(linear(20, 20, "tanh"), gd.Scale(20)), linear(20, 3)], "log_cosh",
        gd.NAdam(lr=1e-2, weight_decay=1e-3), {},
    )  # fmt: skip
    yield "one layer, adagrad", ([linear(9, 1)], "binary_cross_entropy", gd.AdaGrad(lr=0.1), {})


def samples(loss: Any, n_out: int, dtype: str) -> tuple[Any, Any]:
    """x and targets that the loss takes."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((ROWS, 9)).astype(dtype)
    if loss == "probabilities":
        return x, rng.dirichlet(np.ones(n_out), ROWS).astype(dtype)
    if loss == "softmax_cross_entropy" or isinstance(loss, gd.SoftmaxCrossEntropy):
        return x, rng.integers(0, n_out, ROWS)
    if loss == "binary_cross_entropy" or isinstance(loss, gd.BinaryCrossEntropy):
        return x, rng.integers(0, 2, (ROWS, n_out)).astype(dtype)
    return x, rng.standard_normal((ROWS, n_out)).astype(dtype)


def trained(parts: Parts, dtype: str, device: str, threads: int) -> str:
    """The hash of the parameters and losses after STEPS steps, the last of which are taken one by one."""
    layers, loss, optimizer, options = parts
    net = gd.Network(layers, seed=3, dtype=dtype).to(device)
    outside = "float32" if dtype == "bfloat16" else dtype
    x, y = samples(loss, net.n_out, outside)
    chosen = "softmax_cross_entropy" if loss == "probabilities" else loss
    trainer = gd.Trainer(net, chosen, optimizer, threads=threads if device == "cpu" else None, **options)
    history = trainer.fit(x, y, epochs=6, batch_size=BATCH, progress=False, grad_norms=True)
    losses = [*history.loss, *(trainer.step(x[:20], y[:20]) for _ in range(STEPS - len(history.loss)))]
    digest = hashlib.sha256(np.array(losses).tobytes())
    for name in net.params:
        digest.update(
            np.ascontiguousarray(
                net.to("cpu").params[name] if device == "cuda" else net.params[name]
            ).tobytes()
        )
    assert history.grad_norms is not None
    digest.update(history.grad_norms.astype(np.float64).tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Print a line for each network, type and device."""
    device = "cuda" if gd.cuda.is_available() else "cpu"
    for dtype in ("float32", "float64") if device == "cpu" else ("float32", "float64", "bfloat16"):
        for name, parts in networks():
            found = {
                trained(parts, dtype, device, threads) for threads in (THREADS if device == "cpu" else (1,))
            }
            print(f"{device:4} {dtype:8} {' / '.join(sorted(found))}  {name}", flush=True)


if __name__ == "__main__":
    main()
