"""One contestant in a process of its own: ``python -m bench.contestants NAME CASE THREADS``.

Prints READY with the loss of the first epoch, then answers each number of epochs on stdin with the seconds it took.
Each contestant takes whole passes over the same batches in the same order.
"""

import os
import sys
import time


def gdkernels_epoch(case, threads):
    """`Trainer.fit`: an epoch is one native call."""
    import gdkernels as gd

    return _gdkernels(gd, case, threads, lambda trainer, x, y, epochs: trainer.fit(
        x, y, epochs=epochs, batch_size=case.batch, shuffle=False, progress=False
    ).loss[-1])  # fmt: skip


def gdkernels_step(case, threads):
    """`Trainer.step`, called from a Python loop."""
    import gdkernels as gd

    def run(trainer, x, y, epochs):
        batches = [(x[i : i + case.batch], y[i : i + case.batch]) for i in range(0, len(x), case.batch)]
        for _ in range(epochs):
            for batch_x, batch_y in batches:
                value = trainer.step(batch_x, batch_y)
        return value

    return _gdkernels(gd, case, threads, run)


def _gdkernels(gd, case, threads, run):
    net = gd.mlp(case.sizes, activation=case.activation)
    for layer, w in enumerate(case.weights()):
        net.params[f"{layer}.w"][...] = w
    loss = "softmax_cross_entropy" if case.loss == "ce" else "mse"
    trainer = gd.Trainer(net, loss=loss, optimizer=gd.Adam(lr=1e-3), threads=threads)
    x, y = case.data()
    return lambda epochs: float(run(trainer, x, y, epochs))


def _batches(case):
    x, y = case.data()
    shape = (case.batches, case.batch)
    return x.reshape(*shape, -1), y.reshape(shape if case.loss == "ce" else (*shape, -1))


def jax_scan(case, threads):
    """JAX: a jitted `lax.scan` over the epoch with donated buffers."""
    import jax
    import jax.numpy as jnp
    import optax

    activation = jax.nn.relu if case.activation == "relu" else jnp.tanh
    params = [(jnp.array(w), jnp.zeros(w.shape[1], jnp.float32)) for w in case.weights()]

    def loss(params, x, y):
        for w, b in params[:-1]:
            x = activation(x @ w + b)
        w, b = params[-1]
        out = x @ w + b
        if case.loss == "ce":
            return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()
        return ((out - y) ** 2).mean()

    optimizer = optax.adam(1e-3)

    def step(carry, batch):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    epoch = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches), donate_argnums=0)
    x, y = _batches(case)
    batches = (jnp.array(x), jnp.array(y.astype("int32") if case.loss == "ce" else y))
    carry = (params, optimizer.init(params))

    def run(epochs):
        nonlocal carry
        for _ in range(epochs):
            carry, values = epoch(carry, batches)
        return float(values[-1])

    return run


def torch_fused(case, threads):
    """PyTorch eager with the fused Adam."""
    import torch

    torch.set_num_threads(threads)
    layers = []
    for w in case.weights():
        layer = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w.T.copy()))
            layer.bias.zero_()
        layers += [layer, torch.nn.ReLU() if case.activation == "relu" else torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers[:-1])
    loss = torch.nn.functional.cross_entropy if case.loss == "ce" else torch.nn.functional.mse_loss
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(*_batches(case), strict=True)]

    def run(epochs):
        for _ in range(epochs):
            for x, y in batches:
                optimizer.zero_grad(set_to_none=True)
                value = loss(net(x), y)
                value.backward()
                optimizer.step()
        return float(value)

    return run


CONTESTANTS = {
    "gdkernels": gdkernels_epoch,
    "gdkernels step": gdkernels_step,
    "jax scan": jax_scan,
    "torch fused": torch_fused,
}


def main() -> None:
    name, letter, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GDKERNELS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if threads == 1 and hasattr(
        os, "sched_setaffinity"
    ):  # JAX takes its number of threads from the cores it sees
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from bench.cases import CASES

    run = CONTESTANTS[name](CASES[letter], threads)
    print("READY", run(1), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
