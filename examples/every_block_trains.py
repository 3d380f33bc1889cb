"""Each block of one launch trains a network of its own: which learning rate tells three wines apart, and how surely?

Networks of 13-16-3, parameters, gradients, Adam's states and activations in the shared memory of a block, learn the 178
wines of scikit-learn. One launch trains them all, every rate from as many seeds; the table tells what one run would hide.

Run ``python examples/every_block_trains.py`` where there is a GPU; without one, put ``tools/ptxemu/run`` before it.
"""

import math
import sys
import warnings

import numpy as np
from numba import cuda, float32
from sklearn.datasets import load_wine

import gdkernels as gd
from gdkernels.cuda import device

SIZES, ROWS, THREADS = [13, 16, 3], 32, 64
RATES = (3e-1, 3e-2, 3e-3, 3e-4)
mlp = device.Mlp(SIZES, "tanh", "adam")
SHARED = mlp.shared_bytes(ROWS, buffers=4)


@cuda.jit
def train(flat, x, labels, order, table, rate_of, losses):
    """Block b trains flat[b] by the batches order[step] and the rows table[rate_of[b], step]; losses[b] is the last."""
    memory = cuda.shared.array(0, float32, alignment=16)
    size, block = mlp.size, cuda.blockIdx.x
    params, grads, tile = memory[:size], memory[size : 2 * size], memory[4 * size :]
    m, v = memory[2 * size : 3 * size], memory[3 * size : 4 * size]
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    for i in range(thread, 4 * size, threads):
        memory[i] = flat[block, i] if i < size else 0
    for step in range(len(order)):
        for i in range(thread, 13 * ROWS, threads):
            tile[mlp.block_x(i // 13, i % 13, ROWS)] = x[order[step, i // 13], i % 13]
        mlp.block_forward(params, tile, ROWS)
        loss = float32(0)
        if thread < ROWS:  # softmax and cross-entropy: dL/dlogits = (softmax − one-hot) / rows
            label, largest, total = labels[order[step, thread]], float32(-math.inf), float32(0)
            for j in range(3):
                largest = max(largest, tile[mlp.block_y(thread, j, ROWS)])
            for j in range(3):
                total += math.exp(tile[mlp.block_y(thread, j, ROWS)] - largest)
            loss = largest + math.log(total) - tile[mlp.block_y(thread, label, ROWS)]
            for j in range(3):
                at = mlp.block_y(thread, j, ROWS)
                tile[at] = (math.exp(tile[at] - largest) / total - float32(j == label)) / float32(ROWS)
        loss = device.block_sum(loss) / float32(ROWS)
        mlp.block_backward(params, grads, tile, ROWS)
        mlp.block_update(params, grads, (m, v), table[rate_of[block], step])
        if thread == 0:
            losses[block] = loss
    cuda.syncthreads()
    for i in range(thread, size, threads):
        flat[block, i] = params[i]


def wines() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x, labels) to learn and to test: 128 and 50 wines, scaled by those to learn."""
    data = load_wine()
    mixed = np.random.default_rng(0).permutation(len(data.target))
    x, labels = data.data[mixed], data.target[mixed].astype(np.int64)
    x = ((x - x[:128].mean(0)) / x[:128].std(0)).astype(np.float32)
    return x[:128], labels[:128], x[128:], labels[128:]


def main(seeds: int = 8, epochs: int = 25) -> dict[str, float]:
    """Train rates × seeds networks in one launch, print the table, and train one of them by a Trainer for comparison."""
    warnings.filterwarnings("ignore", message="Grid size")
    x, labels, test_x, test_labels = wines()
    rng = np.random.default_rng(1)
    order = np.concatenate([rng.permutation(128).reshape(-1, ROWS) for _ in range(epochs)])
    table = np.array([[device.adam_row(step, lr) for step in range(1, len(order) + 1)] for lr in RATES])
    nets = [gd.mlp(SIZES, "tanh", seed=seed) for _ in RATES for seed in range(seeds)]
    rate_of = np.repeat(np.arange(len(RATES)), seeds)
    flat = cuda.to_device(np.stack([net.flat for net in nets]))
    losses = cuda.device_array(len(nets), np.float32)
    arrays = [cuda.to_device(each) for each in (x, labels, order, table, rate_of)]
    train[len(nets), THREADS, 0, SHARED](flat, *arrays, losses)

    found = flat.copy_to_host()
    for net, parameters in zip(nets, found, strict=True):
        net.flat[:] = parameters
    right = np.array([(net.predict(test_x).argmax(1) == test_labels).mean() for net in nets])
    print(f"{len(nets)} networks of {SIZES}, {len(order)} steps each, in one launch:")
    print(f"{'rate':>8}{'last loss':>12}{'test accuracy, worst to best of ' + str(seeds):>44}")
    for number, lr in enumerate(RATES):
        mine = rate_of == number
        loss = losses.copy_to_host()[mine].mean()
        spread = f"{right[mine].min():.2f} to {right[mine].max():.2f}, {right[mine].mean():.3f} on average"
        print(f"{lr:8g}{loss:12.4f}{spread:>44}")
    trainer = gd.Trainer(gd.mlp(SIZES, "tanh", seed=0), optimizer=gd.Adam(lr=RATES[1]))
    for batch in order:
        trainer.step(x[batch], labels[batch])
    alone = np.abs(trainer.net.flat - found[seeds]).max()
    print(f"One of them trained by gd.Trainer: parameters agree within {alone:.1e}.")
    return {"best": float(right.max()), "difference": float(alone)}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
