"""What Numba knows of views: their types, how one gets into compiled code, and their methods there.

A view is one word in compiled code, the address of its words (`calls`). It is data, like the address of an array: no
compiled function holds one, unless a view is a global of it, and so functions that take views can be kept on disk. The
type carries the fingerprint of this package's sources: a function that was kept is compiled again where these have changed.

Types of arguments are checked when a function is compiled, by Python exceptions, which Numba lets through as they are;
shapes and values when it runs, by exceptions that put their message together when Python sees them.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_constant
from numba.extending import (
    NativeValue,
    intrinsic,
    overload_attribute,
    overload_method,
    register_jitable,
    register_model,
    unbox,
)
from numba.np.arrayobj import populate_array

from ... import cache
from ..runtime.jit import Kernel
from ..runtime.simd import I64, apply, float64_at, int64_at, invoke
from . import calls
from .calls import (
    DONE,
    FLAT_GRADS,
    FLAT_PARAMS,
    GROW,
    LEASE,
    MOST,
    N_IN,
    N_OUT,
    NOT_A_CLASS,
    NOT_A_RATE,
    NOT_A_TARGET,
    PREDICT,
    STEP_LABELS,
    STEP_VALUES,
    VJP,
)
from .complaints import (
    ANY,
    DX,
    DY,
    GOING_BACK,
    NAMES,
    OPS,
    OUT,
    PREDICTING,
    SAMPLE,
    STEPPING,
    LabelError,
    LabelShapeError,
    MovedError,
    NoRoomError,
    NoRowsError,
    NotFiniteError,
    RateError,
    ShapeError,
    TargetError,
    TargetKindError,
    X,
    Y,
)

# ---------------------------------------------------------------------------------------------- types


class ViewType(types.Type):
    """A view of what computes in `dtype`."""

    def __init__(self, dtype):
        self.dtype, self.sources = dtype, cache.fingerprint()
        super().__init__(name=f"{type(self).__name__}({dtype})")

    @property
    def key(self):
        return self.name, self.sources


class NetworkViewType(ViewType):
    """Of `Network.jitted`."""


class TrainerViewType(ViewType):
    """Of `Trainer.jitted`."""


@register_model(NetworkViewType)
@register_model(TrainerViewType)
class _ViewModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, I64)


@unbox(NetworkViewType)
@unbox(TrainerViewType)
def _unbox(kind, view, c):
    """The address of the words of a view; the caller holds the view while compiled code runs."""
    found = c.pyapi.object_getattr_string(view, "address")
    missing = cgutils.is_null(c.builder, found)
    place = cgutils.alloca_once_value(c.builder, I64(0))
    with c.builder.if_then(c.builder.not_(missing)):
        c.builder.store(c.pyapi.long_as_longlong(found), place)
        c.pyapi.decref(found)
    return NativeValue(c.builder.load(place), is_error=missing)


FROZEN: list[Any] = []  # views that are globals of compiled functions, which may live as long as the process


@lower_constant(NetworkViewType)
@lower_constant(TrainerViewType)
def _freeze(context, builder, kind, view):
    """A view that is a global: its address becomes part of the code, which Numba then does not keep on disk."""
    FROZEN.append(view)
    place = context.add_dynamic_addr(builder, view.address, info="view")
    return builder.ptrtoint(place, I64)


@intrinsic
def words_of(typingctx, view):
    """The words of a view."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], I64.as_pointer())

    return types.CPointer(types.int64)(view), generate


def _flat(slot: int):
    """flat(view): a flat buffer, as an array that keeps it alive."""

    @intrinsic
    def flat(typingctx, view):
        kind = types.Array(view.dtype, 1, "C")

        def generate(context, builder, signature, arguments):
            words = builder.inttoptr(arguments[0], I64.as_pointer())
            place, count, held = (builder.load(builder.gep(words, [I64(slot + word)])) for word in range(3))
            size = I64(view.dtype.bitwidth // 8)
            array = context.make_array(kind)(context, builder)
            populate_array(
                array, data=builder.inttoptr(place, array.data.type), shape=[count], strides=[size], itemsize=size,
                meminfo=builder.inttoptr(held, cgutils.voidptr_t),
            )  # fmt: skip
            context.nrt.incref(builder, kind, array._getvalue())
            return array._getvalue()

        return kind(view), generate

    return flat


_params, _grads = _flat(FLAT_PARAMS), _flat(FLAT_GRADS)


@overload_attribute(NetworkViewType, "flat_params")
def flat_params(view):
    """All parameters, in the order and with the gaps of the flat buffer."""
    return lambda view: _params(view)


@overload_attribute(NetworkViewType, "flat_grads")
def flat_grads(view):
    """Their gradients, likewise."""
    return lambda view: _grads(view)


# ---------------------------------------------------------------------------------------------- checks of types


def _checked(
    op: int, name: int, kind: Any, dtype: Any, dimensions: tuple[int, ...], written: bool = False
) -> None:
    """Raise TypeError where an argument is no array of this element type, or one that cannot be written."""
    what = f"{OPS[op]}: {NAMES[name]}"
    if not isinstance(kind, types.Array):
        raise TypeError(f"{what} is of type {kind}, expected an array of {dtype}")
    if kind.dtype != dtype:
        raise TypeError(f"{what} has dtype {kind.dtype}, expected {dtype} like the network")
    if kind.ndim not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise TypeError(f"{what} has {kind.ndim} dimensions, expected {wanted}")
    if not kind.aligned:
        raise TypeError(f"{what} is not aligned, expected a copy that is")
    if written and not kind.mutable:
        raise TypeError(f"{what} is read-only, expected a writable array")


def _absent(kind: Any) -> bool:
    """Whether an argument was left out, or is None."""
    return kind is None or isinstance(kind, types.NoneType | types.Omitted)


# ---------------------------------------------------------------------------------------------- methods


@register_jitable
def _of_matrix(a):
    """(rows, columns, bytes between rows, bytes between columns)."""
    return a.shape[0], a.shape[1], a.strides[0], a.strides[1]


@register_jitable
def _of_sample(a):
    """The same of one row."""
    return 1, a.shape[0], 0, a.strides[0]


@register_jitable
def _of_column(a):
    """The same of labels, or of the values of one output."""
    return a.shape[0], 1, a.strides[0], a.itemsize


@register_jitable
def _new_matrix(rows, columns, like):
    return np.empty((rows, columns), like.dtype)


@register_jitable
def _new_sample(rows, columns, like):
    return np.empty(columns, like.dtype)


def _forms(kind: types.Array) -> tuple[Any, Any, int]:
    """How an argument is laid out, how a result like it is made, and whether it is a sample by itself."""
    return (_of_sample, _new_sample, 1) if kind.ndim == 1 else (_of_matrix, _new_matrix, 0)


@register_jitable
def _require(op, name, single, rows, columns, wanted_rows, wanted_columns):
    """Refuse an array of another shape; any number of rows is welcome where `wanted_rows` says so."""
    if columns != wanted_columns or (wanted_rows != ANY and rows != wanted_rows):
        if single:
            raise ShapeError(op, name, SAMPLE, columns, SAMPLE, wanted_columns)
        raise ShapeError(op, name, rows, columns, wanted_rows, wanted_columns)


@register_jitable
def _make_ready(words, op, rows):
    """Refuse a view whose network has moved; make room for this many rows."""
    if int64_at(words[LEASE])[0] == 0:
        raise MovedError(op)
    if rows > words[MOST]:
        apply(words[GROW], rows)
        if rows > words[MOST]:
            raise NoRoomError(op, rows)


def _slots(call: Kernel) -> Any:
    """The places of the operands in the record of a call, by their names."""
    return namedtuple("Slots", call.words)(*range(len(call.words)))


P, V, S = _slots(calls.predict), _slots(calls.vjp), _slots(calls.step)


@overload_method(NetworkViewType, "predict")
def network_predict(view, x, out=None):
    """y (n, n_out) for x (n, n_in), or y (n_out,) for one sample (n_in,); in `out` where that is given."""
    _checked(PREDICTING, X, x, view.dtype, (1, 2))
    form, new, single = _forms(x)
    if not _absent(out):
        _checked(PREDICTING, OUT, out, view.dtype, (x.ndim,), written=True)

    @register_jitable
    def into(view, x, y):
        words = words_of(view)
        rows, columns, x_row, x_column = form(x)
        _require(PREDICTING, X, single, rows, columns, ANY, words[N_IN])
        y_rows, y_columns, y_row, y_column = form(y)
        _require(PREDICTING, OUT, single, y_rows, y_columns, rows, words[N_OUT])
        _make_ready(words, PREDICTING, 1)
        record = int64_at(words[PREDICT + 1])
        record[P.rows] = rows
        record[P.x], record[P.x_row], record[P.x_column] = x.ctypes.data, x_row, x_column
        record[P.y], record[P.y_row], record[P.y_column] = y.ctypes.data, y_row, y_column
        invoke(words[PREDICT], words[PREDICT + 1], 0, 1, 0)

    if _absent(out):

        def implementation(view, x, out=None):
            rows = form(x)[0]
            y = new(rows, words_of(view)[N_OUT], x)
            into(view, x, y)
            return y

        return implementation

    def implementation(view, x, out=None):
        into(view, x, out)
        return out

    return implementation


@overload_method(NetworkViewType, "vjp")
def network_vjp(view, x, dy, dx=None):
    """dL/dx for dL/dy, by a forward pass in training and back; the gradients of the parameters are written."""
    _checked(GOING_BACK, X, x, view.dtype, (1, 2))
    form, new, single = _forms(x)
    _checked(GOING_BACK, DY, dy, view.dtype, (x.ndim,))
    if not _absent(dx):
        _checked(GOING_BACK, DX, dx, view.dtype, (x.ndim,), written=True)

    @register_jitable
    def into(view, x, dy, dx):
        words = words_of(view)
        rows, columns, x_row, x_column = form(x)
        _require(GOING_BACK, X, single, rows, columns, ANY, words[N_IN])
        dy_rows, dy_columns, dy_row, dy_column = form(dy)
        _require(GOING_BACK, DY, single, dy_rows, dy_columns, rows, words[N_OUT])
        dx_rows, dx_columns, dx_row, dx_column = form(dx)
        _require(GOING_BACK, DX, single, dx_rows, dx_columns, rows, columns)
        _make_ready(words, GOING_BACK, rows)
        record = int64_at(words[VJP + 1])
        record[V.rows] = rows
        record[V.x], record[V.x_row], record[V.x_column] = x.ctypes.data, x_row, x_column
        record[V.dy], record[V.dy_row], record[V.dy_column] = dy.ctypes.data, dy_row, dy_column
        record[V.dx], record[V.dx_row], record[V.dx_column] = dx.ctypes.data, dx_row, dx_column
        invoke(words[VJP], words[VJP + 1], 0, 1, 0)

    if _absent(dx):

        def implementation(view, x, dy, dx=None):
            rows, columns = form(x)[:2]
            result = new(rows, columns, x)
            into(view, x, dy, result)
            return result

        return implementation

    def implementation(view, x, dy, dx=None):
        into(view, x, dy, dx)
        return dx

    return implementation


@overload_method(TrainerViewType, "step")
def trainer_step(view, x, y):
    """The loss before a step of training on the batch (x, y)."""
    _checked(STEPPING, X, x, view.dtype, (1, 2))
    form, _, single = _forms(x)
    labels = isinstance(y, types.Array) and y.dtype in (types.int32, types.int64)
    if labels:
        _checked(STEPPING, Y, y, y.dtype, (1,))
    else:
        _checked(STEPPING, Y, y, view.dtype, (1,) if single else (1, 2))
    column = not single and y.ndim == 1  # labels, or targets of one output
    slot, size = (STEP_LABELS, y.dtype.bitwidth // 8) if labels else (STEP_VALUES, 0)
    of_y = _of_column if column else _of_matrix if y.ndim == 2 else _of_column if labels else _of_sample

    def implementation(view, x, y):
        words = words_of(view)
        rows, columns, x_row, x_column = form(x)
        _require(STEPPING, X, single, rows, columns, ANY, words[N_IN])
        y_rows, y_columns, y_row, y_column = of_y(y)
        if words[slot] == 0:
            raise TargetKindError(labels)
        if rows == 0:
            raise NoRowsError(columns)
        if labels:
            if y_rows != rows:
                raise LabelShapeError(y_rows, rows)
        elif y_rows != rows or y_columns != words[N_OUT]:
            raise ShapeError(
                STEPPING, Y, SAMPLE if column else y_rows, y_rows if column else y_columns, rows, words[N_OUT]
            )
        _make_ready(words, STEPPING, rows)
        record = int64_at(words[slot + 1])
        status, value = int64_at(record[S.status]), float64_at(record[S.value])
        status[0] = DONE
        record[S.rows], record[S.y_size] = rows, size
        record[S.x], record[S.x_row], record[S.x_column] = x.ctypes.data, x_row, x_column
        record[S.y], record[S.y_row], record[S.y_column] = y.ctypes.data, y_row, y_column
        invoke(words[slot], words[slot + 1], 0, 1, 0)
        if status[0] != DONE:
            if status[0] == NOT_A_CLASS:
                raise LabelError(status[1], status[2], words[N_OUT])
            if status[0] == NOT_A_TARGET:
                bounds = float64_at(words[slot + 1])
                raise TargetError(status[1], status[2], value[0], bounds[S.low], bounds[S.high])
            if status[0] == NOT_A_RATE:
                raise RateError(status[1], value[0])
            raise NotFiniteError(status[1])
        return value[0]

    return implementation
