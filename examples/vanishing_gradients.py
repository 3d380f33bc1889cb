"""Why deep networks of sigmoids did not learn, and what cured them.

Back-propagation multiplies the gradient by σ′(z) ≤ 1/4 in every sigmoid layer, so that over 30 layers the first one
gets next to nothing. ReLU with He's initialisation keeps the size of the gradient; residual connections with layer
normalisation let it pass around the layers (Hochreiter 1991; He et al. 2015, 2016; Ba et al. 2016).

Run ``python examples/vanishing_gradients.py docs/vanishing_gradients.png`` to draw the figure.
"""

import sys

import numpy as np

import gdkernels as gd
from gdkernels.train.data import load

DEPTH, WIDTH = 30, 64
NETWORKS = {
    "sigmoid, Xavier": {"activation": "sigmoid"},
    "ReLU, He": {"activation": "relu"},
    "sigmoid, residual + LayerNorm": {"activation": "sigmoid", "norm": "layer", "residual": True},
}


def gradient_norms(activation: str, norm: str | None = None, residual: bool = False) -> np.ndarray:
    """|dL/dw| of each of 30 hidden layers, first to last, at the start of training on the digits."""
    data = load("digits")
    x = ((data.x - data.x.mean(0)) / (data.x.std(0) + 1e-8)).astype(np.float64)
    sizes = [x.shape[1], *[WIDTH] * DEPTH, 10]
    net = gd.mlp(sizes, activation=activation, norm=norm, residual=residual, seed=0, dtype="float64")
    logits = net.forward(x, train=True)
    dlogits = np.empty_like(logits)
    gd.softmax_cross_entropy(logits, data.y, grad=dlogits)
    net.backward(dlogits)
    weights = [name for name in net.grads if name.endswith("w")][:DEPTH]
    return np.array([np.linalg.norm(net.grads[name]) for name in weights])


def main(path: str) -> None:
    """Draw the norms of all three networks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, options), marker in zip(NETWORKS.items(), "osD", strict=True):
        axes.semilogy(range(1, DEPTH + 1), gradient_norms(**options), marker=marker, markersize=4, label=name)
    axes.set_xlabel("layer")
    axes.set_ylabel("gradient norm ‖∂L/∂w‖")
    axes.set_title("Gradient by layer at the start of training: 30 layers of 64, digits")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "vanishing_gradients.png")
