"""From a plan to launches: each call becomes kernels with their addresses and sizes."""

from ...plan import Buffer, Call, Gradient, Parameter
from .. import activation, cross_entropy, dropout, loss, norm
from ..gemm import product as gemm
from ..runtime.jit import Launch
from ..runtime.pointer import BYTES


class Binder:
    """Turns calls into launches, for one set of buffers.

    `places` maps the names of buffers to addresses; `params` is the address of the flat parameters as the plan's kernels
    read them (of type `storage`), `grads` that of the flat gradients (of type `real`), `samples` that of the number of
    samples seen. `room` gives temporaries, which last for one call.
    """

    def __init__(
        self, storage: str, real: str, places: dict[str, int], params: int, grads: int, samples: int, room
    ):
        self.storage, self.real, self.places = storage, real, places
        self.params, self.grads, self.samples, self.room = params, grads, samples, room

    def word(self, operand) -> int:
        """The address, or the number, that an operand of a call stands for."""
        if operand is None:
            return 0
        if isinstance(operand, Buffer):
            return self.places[operand.name]
        if isinstance(operand, Parameter):
            return self.params + operand.offset * BYTES[self.storage]
        if isinstance(operand, Gradient):
            return self.grads + operand.parameter.offset * BYTES[self.real]
        return operand

    def launches(self, calls: list[Call], rows: int, accumulate: bool = False) -> list[Launch]:
        """The launches of calls, one after the other."""
        made: list[Launch] = []
        for call in calls:
            self.room.start()
            operands = map(self.word, call.operands)
            made += getattr(self, f"_{call.kernel}")(rows, accumulate, *operands)
        return made

    def _linear(self, rows, _, x, w, b, z, a, kind, n_in, n_out):
        return gemm.launches(
            self.room, self.storage, rows, n_out, n_in, x, n_in, 1, w, n_out, 1, a, n_out, bias=b, activation=kind, z=z
        )  # fmt: skip

    def _linear_dx(self, rows, _, dz, w, dx, add, n_in, n_out):
        return gemm.launches(
            self.room, self.storage, rows, n_in, n_out, dz, n_out, 1, w, 1, n_out, dx, n_in, add=add, ldadd=n_in
        )  # fmt: skip

    def _linear_dw(self, rows, accumulate, x, dz, dw, n_in, n_out):
        return gemm.launches(
            self.room, self.storage, n_in, n_out, rows, x, 1, n_in, dz, n_out, 1, dw, n_out,
            out_storage=self.real, accumulate=accumulate,
        )  # fmt: skip

    def _bias_gradient(self, rows, accumulate, dz, db, n):
        return activation.sums_launches(
            self.room, self.storage, "identity", dz, dz, 0, db, rows, n, accumulate, self.real
        )

    def _activation(self, rows, _, z, a, kind, n):
        return activation.forward_launches(self.storage, kind, z, a, rows * n)

    def _activation_backward(self, rows, _, da, saved, dz, kind, n):
        return activation.backward_launches(self.storage, kind, da, saved, dz, rows * n)

    def _dropout(self, rows, _, x, out, n, p, seed):
        return dropout.launches(self.storage, x, out, rows * n, n, p, seed, 0, self.samples)

    def _add(self, rows, _, a, b, out, n):
        return norm.add_launches(self.storage, a, b, out, rows * n)

    def _layernorm(self, rows, _, x, residual, gamma, beta, out, stats, n, eps):
        return norm.layernorm_launches(self.storage, x, residual, gamma, beta, out, stats, rows, n, eps)

    def _layernorm_dx(self, rows, _, *operands):
        *places, n = operands
        return norm.layernorm_dx_launches(self.storage, *places, rows, n)

    def _layernorm_gradients(self, rows, accumulate, *operands):
        *places, n = operands
        return norm.layernorm_gradients_launches(
            self.room, self.storage, *places, rows, n, accumulate, self.real
        )

    def _rmsnorm(self, rows, _, x, residual, gamma, out, stats, n, eps):
        return norm.rmsnorm_launches(self.storage, x, residual, gamma, out, stats, rows, n, eps)

    def _rmsnorm_dx(self, rows, _, *operands):
        *places, n = operands
        return norm.rmsnorm_dx_launches(self.storage, *places, rows, n)

    def _rmsnorm_gradients(self, rows, accumulate, *operands):
        *places, n = operands
        return norm.rmsnorm_gradients_launches(
            self.room, self.storage, *places, rows, n, accumulate, self.real
        )


def loss_launches(
    storage: str, kernel: str, pred: int, target: int, grad: int, row_loss: int, rows: int, n: int, scale: int,
    options: tuple,
) -> list[Launch]:  # fmt: skip
    """The loss `kernel` (of `loss` or `cross_entropy`) of each row, and its gradient times scale[0].

    pred, grad (rows, n); target (rows, n), or (rows,) int64 labels; row_loss (rows,). `options` are what follows the
    scale in the records of the CPU's kernels, class weights by their address.
    """
    if kernel in loss.ELEMENTS:
        return loss.element_launches(
            kernel, storage, pred, target, grad, row_loss, 0, rows, n, scale, 1.0, options
        )
    return cross_entropy.launches(
        storage, kernel, pred, target, grad, row_loss, rows, n, scale, 1.0, False, *options
    )
