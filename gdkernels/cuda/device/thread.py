"""A multi-layer perceptron in one thread: sizes are constants, what is between the layers lies in registers.

A small layer is written out: every weight is read once, four at a time as they lie in the flat buffer, and every index is a
constant, so that arrays become registers. A layer of more than `WRITTEN_OUT` weights is a loop over blocks of outputs whose
sums are registers; its inputs then lie in local memory.
"""

from typing import Any

from ...scalar.activation import ACTIVATIONS
from ..runtime.intrinsics import load4, repeat, store4
from ..runtime.pointer import pointer, real, registers
from ..runtime.target import device
from .layout import Layer

WRITTEN_OUT = 1024  # weights of a layer
BLOCK = 16  # outputs whose sums a thread keeps, where a layer is a loop


# ---------------------------------------------------------------------------------------------- one layer


def _product(layer: Layer) -> Any:
    """z = b + h w: a function of (parameters, h, z)."""
    n_in, n_out, at_w, at_b, _ = layer
    weights, groups = n_in * n_out, -(-n_in * n_out // 4)

    @device
    def begin(j, p, z):
        z[j] = p[at_b + j]

    @device
    def four(group, p, h, z):
        w0, w1, w2, w3 = load4(p, at_w + 4 * group)
        first = 4 * group
        z[first % n_out] += h[first // n_out] * w0
        if first + 1 < weights:
            z[(first + 1) % n_out] += h[(first + 1) // n_out] * w1
        if first + 2 < weights:
            z[(first + 2) % n_out] += h[(first + 2) // n_out] * w2
        if first + 3 < weights:
            z[(first + 3) % n_out] += h[(first + 3) // n_out] * w3

    @device
    def written_out(p, h, z):
        repeat(begin, n_out, (p, z))
        repeat(four, groups, (p, h, z))

    blocks, rest = divmod(n_out, BLOCK)
    of_block, of_rest = _block_of_outputs(layer, BLOCK), _block_of_outputs(layer, rest)

    @device
    def in_blocks(p, h, z):
        for block in range(blocks):
            of_block(p, h, z, BLOCK * block)
        of_rest(p, h, z, BLOCK * blocks)

    return written_out if weights <= WRITTEN_OUT else in_blocks


def _block_of_outputs(layer: Layer, width: int) -> Any:
    """The outputs from `start` on, as many as `width`."""
    n_in, n_out, at_w, at_b, _ = layer
    is_wide = n_out % 4 == 0 and width % 4 == 0
    groups = width // 4

    @device
    def begin(j, p, start, sums):
        sums[j] = p[at_b + start + j]

    @device
    def one(j, p, at, factor, sums):
        sums[j] += factor * p[at + j]

    @device
    def four(group, p, at, factor, sums):
        w0, w1, w2, w3 = load4(p, at + 4 * group)
        sums[4 * group] += factor * w0
        sums[4 * group + 1] += factor * w1
        sums[4 * group + 2] += factor * w2
        sums[4 * group + 3] += factor * w3

    @device
    def end(j, sums, z, start):
        z[start + j] = sums[j]

    step, count = (four, groups) if is_wide else (one, width)

    @device
    def block(p, h, z, start):
        sums = registers(p, width)
        repeat(begin, width, (p, start, sums))
        for i in range(n_in):
            repeat(step, count, (p, at_w + i * n_out + start, h[i], sums))
        repeat(end, width, (sums, z, start))

    @device
    def nothing(p, h, z, start):
        pass

    return block if width else nothing


def _input_gradient(layer: Layer) -> Any:
    """dh = w dz: a function of (parameters, dz, dh)."""
    n_in, n_out, at_w, _, _ = layer
    weights, groups = n_in * n_out, -(-n_in * n_out // 4)

    @device
    def begin(i, dh):
        dh[i] = real(dh, 0)

    @device
    def four(group, p, dz, dh):
        w0, w1, w2, w3 = load4(p, at_w + 4 * group)
        first = 4 * group
        dh[first // n_out] += w0 * dz[first % n_out]
        if first + 1 < weights:
            dh[(first + 1) // n_out] += w1 * dz[(first + 1) % n_out]
        if first + 2 < weights:
            dh[(first + 2) // n_out] += w2 * dz[(first + 2) % n_out]
        if first + 3 < weights:
            dh[(first + 3) // n_out] += w3 * dz[(first + 3) % n_out]

    @device
    def written_out(p, dz, dh):
        repeat(begin, n_in, (dh,))
        repeat(four, groups, (p, dz, dh))

    @device
    def in_a_loop(p, dz, dh):
        for i in range(n_in):
            total = real(p, 0)
            for j in range(n_out):
                total += p[at_w + i * n_out + j] * dz[j]
            dh[i] = total

    return written_out if weights <= WRITTEN_OUT else in_a_loop


def _gradients(layer: Layer) -> Any:
    """dw += h dz, db += dz: a function of (gradients, h, dz). What pads a parameter stays as it is."""
    n_in, n_out, at_w, at_b, _ = layer
    weights, groups = n_in * n_out, -(-n_in * n_out // 4)

    @device
    def bias(j, g, dz):
        g[at_b + j] += dz[j]

    @device
    def term(at, h, dz):
        return h[at // n_out] * dz[at % n_out] if at < weights else real(h, 0)

    @device
    def four(group, g, h, dz):
        first = 4 * group
        g0, g1, g2, g3 = load4(g, at_w + first)
        sums = (
            g0 + term(first, h, dz),
            g1 + term(first + 1, h, dz),
            g2 + term(first + 2, h, dz),
            g3 + term(first + 3, h, dz),
        )
        store4(g, at_w + first, sums)

    @device
    def written_out(g, h, dz):
        repeat(four, groups, (g, h, dz))
        repeat(bias, n_out, (g, dz))

    @device
    def in_a_loop(g, h, dz):
        for i in range(n_in):
            for j in range(n_out):
                g[at_w + i * n_out + j] += h[i] * dz[j]
        for j in range(n_out):
            g[at_b + j] += dz[j]

    return written_out if weights <= WRITTEN_OUT else in_a_loop


@device
def _no_gradients(g, h, dz):
    """Where only dx is asked for."""


def _each(function: Any, count: int, is_constant: bool) -> Any:
    """function(i, *arguments) for i below `count`: written out, or as a loop."""

    @device
    def written_out(arguments):
        repeat(function, count, arguments)

    @device
    def in_a_loop(arguments):
        for i in range(count):
            function(i, *arguments)

    return written_out if is_constant else in_a_loop


# ---------------------------------------------------------------------------------------------- all layers


def _is_small(layers: list[Layer]) -> bool:
    """Whether every index can be a constant."""
    return all(layer.n_in * layer.n_out <= WRITTEN_OUT for layer in layers)


@device
def _copy(i, source, target):
    target[i] = source[i]


def predict_of(layers: list[Layer], kind: str) -> Any:
    """``predict(params, x, y)``: y of one sample."""
    act, small = ACTIVATIONS[kind].act, _is_small(layers)

    @device
    def activate(j, z):
        z[j] = act(z[j])

    def from_layer(number: int) -> Any:
        """The layers from this one on, as a function of (parameters, input, y)."""
        layer = layers[number]
        product, n_out = _product(layer), layer.n_out
        through, give = _each(activate, n_out, small), _each(_copy, n_out, small)
        rest = None if layer.is_last else from_layer(number + 1)

        @device
        def last(p, h, y):
            z = registers(p, n_out)
            product(p, h, z)
            give((z, y))

        @device
        def hidden(p, h, y):
            z = registers(p, n_out)
            product(p, h, z)
            through((z,))
            rest(p, z, y)

        return last if layer.is_last else hidden

    n_in = layers[0].n_in
    run, take = from_layer(0), _each(_copy, n_in, small)

    @device
    def predict(params, x, y):
        p = pointer(params)
        h = registers(p, n_in)
        take((x, h))
        run(p, h, y)

    return predict


def vjp_of(layers: list[Layer], kind: str) -> Any:
    """``vjp(params, x, dy, dx, grads)``: dx from dy of one sample, and its share of the parameters' gradients, added."""
    act, slope, saved, _ = ACTIVATIONS[kind]
    reads_z, small = saved == "preactivation", _is_small(layers)

    @device
    def activate(j, z, a):
        a[j] = act(z[j])

    @device
    def through_act(j, z, a, d):
        d[j] *= slope(z[j] if reads_z else a[j])

    def from_layer(number: int, with_gradients: bool) -> Any:
        """dh from the input h of this layer and from dy, as a function of (parameters, h, dy, dh, gradients)."""
        layer = layers[number]
        product, to_input = _product(layer), _input_gradient(layer)
        to_parameters = _gradients(layer) if with_gradients else _no_gradients
        n_out = layer.n_out
        forward, backward = _each(activate, n_out, small), _each(through_act, n_out, small)
        take = _each(_copy, n_out, small)
        rest = None if layer.is_last else from_layer(number + 1, with_gradients)

        @device
        def last(p, h, dy, dh, g):
            dz = registers(p, n_out)
            take((dy, dz))
            to_input(p, dz, dh)
            to_parameters(g, h, dz)

        @device
        def hidden(p, h, dy, dh, g):
            z, a, d = registers(p, n_out), registers(p, n_out), registers(p, n_out)
            product(p, h, z)
            forward((z, a))
            rest(p, a, dy, d, g)
            backward((z, a, d))
            to_input(p, d, dh)
            to_parameters(g, h, d)

        return last if layer.is_last else hidden

    n_in = layers[0].n_in
    run, run_without, copy = from_layer(0, True), from_layer(0, False), _each(_copy, n_in, small)

    @device
    def vjp(params, x, dy, dx, grads):
        p = pointer(params)
        h, dh = registers(p, n_in), registers(p, n_in)
        copy((x, h))
        if grads is None:
            run_without(p, h, dy, dh, p)
        else:
            run(p, h, dy, dh, pointer(grads))
        if dx is not None:
            copy((dh, dx))

    return vjp
