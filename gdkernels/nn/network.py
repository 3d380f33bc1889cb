"""A network: layers, and their parameters in one flat buffer."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..check import Array, choice, whole
from ..engine import Engine, Shared
from ..files import replacing
from ..plan import Plan
from . import init
from .layers import (
    Activation,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    Residual,
    RMSNorm,
    checked,
    from_plain,
    to_plain,
)
from .place import CPU, Cuda, Place
from .plan import lower

__all__ = ["Network", "load", "mlp"]

DTYPES = ("float32", "float64", "bfloat16")
NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"layer": LayerNorm, "rms": RMSNorm}

FORMAT = "gdkernels.network.1"

# Of the matrices that one chunk of `predict` fills: 8 MB in float32. Measured on Zen 4: narrow networks are
# 40 % faster than in one go, since a chunk stays in the cache; 784-1024-1024-10 is 3 % slower.
CHUNK_ELEMENTS = 1 << 21

# Samples between those that two copies of a view count, so that dropout never draws the same for both.
APART = 1 << 32


class Network:
    """Layers in a row, from x (batch, n_in) to y (batch, n_out).

    Parameters
    ----------
    layers : sequence of layers; each must take as many columns as the one before it gives
    seed : of the initial weights, which are drawn in the order of the layers, and of dropout
    dtype : "float32" or "float64", of the parameters and of everything that goes in and out; "bfloat16" is float32
        outside, but stores its matrices and multiplies in bfloat16, with float32 sums: on the GPU only

    Attributes
    ----------
    params, grads : mappings from names to arrays. "0.w" and "0.b" are weight and bias of layer 0, "1.gamma" and
        "1.beta" scale and shift of a norm, "2.0.w" belongs to layer 0 of the residual layer 2. The arrays are views of
        one flat buffer: write into them (``net.params["0.w"][:] = w``), they cannot be replaced
    flat : the flat buffer itself, in which each parameter begins at a multiple of 16 elements: what
        `gd.cuda.device.Mlp` takes
    n_in, n_out : columns of x and y
    device : "cpu" or "cuda"
    samples : how many were seen in training; tells dropout which random numbers come next

    Raises ValueError that names the layer where widths do not agree, TypeError for what is not a layer.

    >>> net = Network([Linear(64, 128, "relu"), Linear(128, 10)])
    >>> y = net.forward(np.zeros((32, 64), np.float32))
    """

    params: Mapping[str, Array]
    grads: Mapping[str, Array]

    def __init__(self, layers: Sequence[Layer], seed: int = 0, dtype: DTypeLike = "float32") -> None:
        self._set_up(layers, seed, dtype)
        self._draw()

    def _set_up(self, layers: Sequence[Layer], seed: int, dtype: DTypeLike) -> None:
        """Check the description and make room for the parameters, which are zero."""
        self.layers = checked("Network", layers)
        self.seed = whole("Network", "seed", seed, at_least=0)
        self.storage = _storage(dtype)
        self.dtype = np.dtype("float32" if self.storage == "bfloat16" else self.storage)
        self._plan = lower(self.layers, input_gradient=True, seed=self.seed)
        self.n_in, self.n_out = self._plan.input.columns, self._plan.output.columns
        self._samples = np.zeros(1, np.int64)
        self._lease = np.ones(1, np.int64)
        self._settle(CPU)

    def _settle(self, place: Place) -> None:
        """Make room for parameters and gradients, which are zero, in this place."""
        flat_params = place.zeros(self._plan.size, self.dtype, line=0)
        flat_grads = place.zeros(self._plan.size, self.dtype, line=12)
        self.place, self._flat_params, self._flat_grads = place, flat_params, flat_grads
        # Views of the parameters that there were before are good no more.
        self._lease[0] = 0
        self._lease = np.ones(1, np.int64)
        self.params = _views(self._plan, self._flat_params)
        self.grads = _views(self._plan, self._flat_grads)
        self._engine: Engine | None = None
        self._rows: int | None = None  # of the forward pass that backward would go back through

    def _draw(self) -> None:
        """The initial parameters."""
        rng = np.random.default_rng(self.seed)
        for parameter in self._plan.parameters:
            values = self.params[parameter.name]
            if parameter.draw == "ones":
                values[...] = 1.0
            elif parameter.draw != "zeros":
                values[...] = getattr(init, parameter.draw)(values.shape, rng, self.dtype)

    def __repr__(self) -> str:
        count = sum(values.size for values in self.params.values())
        lines = "".join(f"\n  {number}: {layer!r}" for number, layer in enumerate(self.layers))
        where = " on the GPU" if self.device == "cuda" else ""
        return f"Network of {count:,} parameters, {self.storage}{where}:{lines}"

    # ------------------------------------------------------------------------------------------ passes

    def forward(self, x: Array, train: bool = False) -> Array:
        """y (batch, n_out), a new array, for x (batch, n_in).

        With `train` dropout acts, and what `backward` needs is kept.

        Raises TypeError where x has another dtype than the network, ValueError where its shape is wrong.
        """
        rows = self.place.matrix("Network.forward", "x", x, self.dtype, self.n_in)
        self._rows = None
        y = self._own_engine().forward(rows, train, self.samples)
        if train:
            self._rows = len(rows)
            self.samples += len(rows)
        return self.place.give(y, x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        """dL/dx (batch, n_in), a new array, from dL/dy (batch, n_out), after ``forward(x, train=True)``.

        The gradients of the parameters are written to `grads`, or added to them with `accumulate`. They are sums
        over the rows; a mean over the batch belongs into dy.

        Raises RuntimeError where there was no such forward pass, TypeError and ValueError as `forward`.
        """
        if self._rows is None:
            raise RuntimeError(
                "Network.backward: there is no forward pass to go back through; call forward(x, train=True) first"
            )
        rows = self.place.matrix("Network.backward", "dy", dy, self.dtype, self.n_out)
        if len(rows) != self._rows:
            raise ValueError(
                f"Network.backward: dy has shape {dy.shape}, expected {(self._rows, self.n_out)} "
                f"because x had {self._rows} rows"
            )
        dx = self._own_engine().backward(rows, accumulate)
        assert dx is not None  # the plan was lowered with it
        return self.place.give(dx, dy)

    def predict(self, x: Array, batch_size: int | None = None) -> Array:
        """`forward` in chunks of `batch_size` rows, so that many rows need little memory; the same bits.

        Several threads may predict at once; they take turns.
        """
        rows = self.place.matrix("Network.predict", "x", x, self.dtype, self.n_in)
        if batch_size is not None:
            batch_size = whole("Network.predict", "batch_size", batch_size, at_least=1)
        self._rows = None
        return self.place.give(in_chunks(self._own_engine(), rows, batch_size), x)

    @property
    def flat(self) -> Array:
        """The buffer of all parameters, of which `params` are views."""
        return self._flat_params

    @property
    def samples(self) -> int:
        """How many samples were seen in training."""
        return self._samples.item()

    @samples.setter
    def samples(self, seen: int) -> None:
        self._samples[0] = seen

    def jitted(self, copies: int | None = None) -> Any:
        """The network in functions of yours that ``numba.njit`` compiles, which take the view as an argument or a global.

        There ``view.predict(x, out=None)`` is `predict`, and ``view.vjp(x, dy, dx=None)``, which gives dL/dx, is
        ``forward(x, train=True)`` and `backward`: on one thread, with the same bits. x is (n, n_in), or (n_in,) for one
        sample. ``view.flat_params`` and ``view.flat_grads`` are all parameters and gradients, for a step of an optimizer.
        Nothing is allocated where `out` or `dx` is given. Nothing is compiled for a network: a function that takes its view
        takes that of every network of this dtype, and ``cache=True`` keeps it.

        The view shares the parameters, until `to` moves them. It serves one thread at a time.

        Parameters
        ----------
        copies : None for one view, which writes gradients into `grads` of the network. A number for a tuple of so many that
            can be used at once, as in ``numba.prange``: each has its own ``view.grads`` and its own sequence of dropout

        Raises RuntimeError where the network is on the GPU.

        >>> view = net.jitted()
        >>> @numba.njit
        ... def rollout(view, state, steps):
        ...     for _ in range(steps):
        ...         state += 0.01 * view.predict(state)
        ...     return state
        """
        op = "Network.jitted"
        if copies is None:
            return self.place.network_view(op, self._plan, self.shared(), self.storage)
        copies = whole(op, "copies", copies, at_least=1)
        return tuple(
            self.place.network_view(op, self._plan, self._apart(number), self.storage)
            for number in range(copies)
        )

    def shared(self) -> Shared:
        """What a view has in common with the network."""
        return Shared(self._flat_params, self._flat_grads, self.grads, self._samples, self._lease)

    def _apart(self, number: int) -> Shared:
        """What copy number `number` of a view has in common with the network: not the gradients, nor what it has seen."""
        flat_grads = self.place.zeros(self._plan.size, self.dtype, line=12)
        seen = np.full(1, self.samples + (number + 1) * APART, np.int64)
        return Shared(self._flat_params, flat_grads, _views(self._plan, flat_grads), seen, self._lease)

    @property
    def device(self) -> str:
        """Where the network computes: "cpu" or "cuda"."""
        return self.place.name

    def to(self, device: str) -> "Network":
        """Move parameters and gradients to "cpu" or "cuda", in place, and return the network.

        On the GPU `params` and `grads` hold CuPy arrays where CuPy is installed, else arrays of Numba. Passes take arrays
        of the GPU, or NumPy arrays, which are copied there and whose results are copied back.

        Raises ValueError for another device, ImportError where packages are missing, RuntimeError where there is no GPU,
        MemoryError where its memory is too small; the network then stays as it was.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f"Network.to: device is {device!r}, expected 'cpu' or 'cuda'")
        if device != self.device:
            params, grads = map(self.place.to_numpy, (self._flat_params, self._flat_grads))
            self._settle(CPU if device == "cpu" else Cuda())
            self.place.fill(self._flat_params, params)
            self.place.fill(self._flat_grads, grads)
            self._rows = None
        return self

    def _own_engine(self) -> Engine:
        """The engine of the passes, made when it is first needed: it loads the kernels."""
        if self._engine is None:
            self._engine = self.new_engine(self._plan, None)
        return self._engine

    def new_engine(self, plan: Plan, threads: int | None) -> Engine:
        """An engine over this network's parameters and gradients."""
        return self.place.engine(plan, self._flat_params, self._flat_grads, threads, self.storage)

    # ------------------------------------------------------------------------------------------ copies

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: views of the flat buffer must be made anew. Gradients are left behind."""
        return {
            "description": (self.layers, self.seed, self.storage),
            "parameters": self.place.to_numpy(self._flat_params).copy(),
            "samples": self.samples,
            "device": self.device,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up(*state["description"])
        self._flat_params[...] = state["parameters"]
        self.samples = state["samples"]
        self.to(state["device"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers and parameters as a safetensors file, which `load` reads.

        The file is written beside `path`, synced and renamed: a crash leaves the old file or the new one.
        Raises OSError where that is impossible.
        """
        from safetensors.numpy import save_file

        from .. import __version__

        description = {
            "layers": [to_plain(layer) for layer in self.layers],
            "dtype": self.storage,
            "seed": self.seed,
            "samples": self.samples,
        }
        metadata = {"format": FORMAT, "version": __version__, "network": json.dumps(description)}
        with replacing(path) as temporary:
            save_file(dict(_views(self._plan, self.place.to_numpy(self._flat_params))), temporary, metadata)


def load(path: str | os.PathLike[str]) -> Network:
    """The network that `Network.save` wrote.

    Raises FileNotFoundError, or ValueError that names the file and what is wrong with it.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise FileNotFoundError(f"load: there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return _read(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"load: {path} cannot be read as safetensors: {error}") from error
    except ValueError as error:
        raise ValueError(f"load: {path}: {error}") from error


def _read(file: Any) -> Network:
    """The network in an open safetensors file. ValueError says what is wrong."""
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r}, expected {FORMAT!r}")
    net = Network.__new__(Network)
    try:
        description = json.loads(metadata["network"])
        layers = [from_plain(plain) for plain in description["layers"]]
        net._set_up(layers, description["seed"], description["dtype"])
        net.samples = whole("Network", "samples", description["samples"], at_least=0)
    except KeyError as error:
        raise ValueError(f"its description of the network lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"its description of the network is wrong: {error}") from error
    kind = {"float32": "F32", "float64": "F64"}[net.dtype.name]
    found = set(file.keys())
    for name, values in net.params.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        stored = file.get_slice(name)
        if tuple(stored.get_shape()) != values.shape:
            raise ValueError(f"{name} has shape {tuple(stored.get_shape())}, expected {values.shape}")
        if stored.get_dtype() != kind:
            raise ValueError(f"{name} has dtype {stored.get_dtype()}, expected {kind}")
        values[...] = file.get_tensor(name)
    for name in sorted(found - set(net.params)):
        raise ValueError(f"{name} belongs to no layer")
    return net


def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    norm: str | None = None,
    residual: bool = False,
    dropout: float = 0.0,
    init: str = "auto",
    seed: int = 0,
    dtype: DTypeLike = "float32",
) -> Network:
    """A multi-layer perceptron: a block for every hidden size, then a linear layer.

    A block is norm → linear + activation → dropout, inside a `Residual` where it gives as many columns as it takes
    (pre-norm, as in Xiong et al. 2020, arXiv 2002.04745).

    Parameters
    ----------
    sizes : number of inputs, of the outputs of every hidden layer, and of outputs
    activation : a name that `gd.activation` lists
    norm : None, "layer" or "rms"
    residual : whether blocks of equal width are wrapped in `Residual`
    dropout : probability p of `Dropout`; 0 for none
    init : as for `Linear`
    seed, dtype : as for `Network`

    >>> mlp([64, 128, 128, 10], activation="gelu", norm="layer", residual=True, dropout=0.1)
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes is {sizes!r}, expected at least two numbers, of inputs and outputs")
    choice("mlp", "norm", norm, (None, *NORMS))
    Activation(activation), Dropout(dropout)  # checked also where there is no hidden layer
    layers: list[Layer] = []
    for n_in, n_out in itertools.pairwise(sizes[:-1]):
        block: list[Layer] = [Linear(n_in, n_out, activation, init=init)]
        if norm is not None:
            block.insert(0, NORMS[norm](n_in))
        if dropout != 0.0:
            block.append(Dropout(dropout))
        layers += [Residual(*block)] if residual and n_in == n_out else block
    layers.append(Linear(sizes[-2], sizes[-1], init=init))
    return Network(layers, seed, dtype)


def in_chunks(engine: Engine, x: Array, batch_size: int | None = None) -> Array:
    """The engine's outputs for x in evaluation, in chunks of `batch_size` rows, or of as many as `CHUNK_ELEMENTS` allows."""
    rows = batch_size or max(1, CHUNK_ELEMENTS // sum(buffer.columns for buffer in engine.plan.buffers))
    y = engine.empty(len(x))
    for start in range(0, len(x), rows):
        y[start : start + rows] = engine.forward(x[start : start + rows])
    return y


def _storage(dtype: DTypeLike) -> str:
    """The type that a network's matrices are stored in."""
    try:
        name = "bfloat16" if dtype == "bfloat16" else np.dtype(dtype).name if dtype is not None else "None"
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise ValueError(f"Network: dtype is {name}, expected {' or '.join(DTYPES)}")
    return name


def _views(plan: Plan, flat: Array) -> Mapping[str, Array]:
    """Names and the places that they stand for in a flat buffer."""
    views = {}
    for parameter in plan.parameters:
        count = int(np.prod(parameter.shape))
        views[parameter.name] = flat[parameter.offset : parameter.offset + count].reshape(parameter.shape)
    return MappingProxyType(views)
