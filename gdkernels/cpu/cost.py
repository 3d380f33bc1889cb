"""What an operation costs one core: nanoseconds for each element of float32, about; float64 counts twice.

The table decides how many workers share an operation, and whether a sum over rows is cut into blocks, which its bits depend
on. Nothing else: a figure that is half or twice of what a machine needs costs a few microseconds where work is small.

Measured on two cores of an AMD EPYC (Zen 4, AVX-512), arrays in the second-level cache; `python -m bench --sections costs`
measures all of them again and tells which have moved. On a core of an Intel Xeon with AVX-512 they are within a factor of
two, but for sums of columns, what products cost besides their multiply-adds, and steps by weights and columns:
these cost a sixth to a third of what is said here.
"""

NS = {
    "activation, cheap": 0.08,  # identity, relu, leaky_relu, a scale: forward or backward, bound by the cache
    "activation": 0.4,  # all others, forward or backward
    "column sums": 0.2,  # of the blocks of a shared sum of rows
    "product": 0.02,  # for each multiply-add of a matrix product
    "product, element": 0.2,  # besides, for each element of its result
    "linear, element": 1.0,  # likewise, with bias and activation
    "dropout": 0.7,
    "norm": 0.15,  # also the gradient of a scale
    "norm backward": 0.4,
    "norm, blocks": 0.1,  # to add up the blocks of a parameter's gradient
    "softmax": 0.8,  # also its logarithm
    "loss": 1.4,  # of elements, where nothing else is said: an exponential and a logarithm
    "mse": 0.2,
    "huber": 0.2,
    "cross-entropy": 1.0,
    "update": 0.32,  # of a parameter, by any optimizer
    "squares": 0.08,  # of a gradient
    "clip": 0.08,  # of a gradient: a product
    "step, weight": 0.06,  # of a training step: each weight, for each row of the batch
    "step, column": 2.0,  # each column of each matrix of the plan, for each row
    "step, parameter": 1.0,  # each parameter, once
}


LEAST_ROWS, MOST_BLOCKS = 16, 64


def rows_of_block(batch: int) -> int:
    """The rows of a block, where a sum over rows is cut: at least `LEAST_ROWS`, in at most `MOST_BLOCKS` blocks."""
    return max(LEAST_ROWS, -(-batch // MOST_BLOCKS))


def work(operation: str, array) -> float:
    """Nanoseconds of one core for an operation over an array."""
    return NS[operation] * array.nbytes / 4
