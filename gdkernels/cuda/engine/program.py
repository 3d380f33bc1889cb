"""From a plan to launches: each call becomes kernels with their addresses and sizes."""

from ...plan import Buffer, Call, Gradient, Parameter
from .. import activation, cross_entropy, dropout, loss, norm
from ..gemm import product as gemm
from ..norm_gradients import gradient_launches
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
            self.room, self.storage, m=rows, n=n_out, k=n_in, a=x, rsa=n_in, csa=1, b=w, rsb=n_out, csb=1, out=a,
            ldo=n_out, bias=b, activation=kind, z=z,
        )  # fmt: skip

    def _linear_dx(self, rows, _, dz, w, dx, add, n_in, n_out):
        return gemm.launches(
            self.room, self.storage, m=rows, n=n_in, k=n_out, a=dz, rsa=n_out, csa=1, b=w, rsb=1, csb=n_out, out=dx,
            ldo=n_in, add=add, ldadd=n_in,
        )  # fmt: skip

    def _linear_dw(self, rows, accumulate, x, dz, dw, n_in, n_out):
        return gemm.launches(
            self.room, self.storage, m=n_in, n=n_out, k=rows, a=x, rsa=1, csa=n_in, b=dz, rsb=n_out, csb=1, out=dw,
            ldo=n_out, out_storage=self.real, accumulate=accumulate,
        )  # fmt: skip

    def _bias_gradient(self, rows, accumulate, dz, db, n):
        return activation.sums_launches(
            self.room, self.storage, "identity", da=dz, saved=dz, dz=0, db=db, rows=rows, n=n, accumulate=accumulate,
            sum_storage=self.real,
        )  # fmt: skip

    def _activation(self, rows, _, z, a, kind, n):
        return activation.forward_launches(self.storage, kind, z, a, rows * n)

    def _activation_backward(self, rows, _, da, saved, dz, kind, n):
        return activation.backward_launches(self.storage, kind, da, saved, dz, rows * n)

    def _dropout(self, rows, _, x, out, n, p, seed):
        return dropout.launches(
            self.storage, x=x, out=out, count=rows * n, n=n, p=p, seed=seed, begin=0, samples=self.samples
        )

    def _add(self, rows, _, a, b, out, n):
        return norm.add_launches(self.storage, a, b, out, rows * n)

    def _layernorm(self, rows, _, x, residual, gamma, beta, out, stats, n, eps):
        return norm.forward_launches(
            self.storage, centred=True, x=x, residual=residual, gamma=gamma, beta=beta, out=out, stats=stats, rows=rows,
            n=n, eps=eps,
        )  # fmt: skip

    def _layernorm_dx(self, rows, _, dy, x, residual, gamma, stats, dx, n):
        return norm.dx_launches(
            self.storage, centred=True, dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, rows=rows, n=n
        )  # fmt: skip

    def _layernorm_gradients(self, rows, accumulate, dy, x, residual, stats, dgamma, dbeta, n):
        return gradient_launches(
            self.room, self.storage, centred=True, dy=dy, x=x, residual=residual, stats=stats, dgamma=dgamma,
            dbeta=dbeta, rows=rows, n=n, accumulate=accumulate, out_storage=self.real,
        )  # fmt: skip

    def _rmsnorm(self, rows, _, x, residual, gamma, out, stats, n, eps):
        return norm.forward_launches(
            self.storage, centred=False, x=x, residual=residual, gamma=gamma, out=out, stats=stats, rows=rows, n=n,
            eps=eps,
        )  # fmt: skip

    def _rmsnorm_dx(self, rows, _, dy, x, residual, gamma, stats, dx, n):
        return norm.dx_launches(
            self.storage, centred=False, dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, rows=rows, n=n
        )  # fmt: skip

    def _rmsnorm_gradients(self, rows, accumulate, dy, x, residual, stats, dgamma, n):
        return gradient_launches(
            self.room, self.storage, centred=False, dy=dy, x=x, residual=residual, stats=stats, dgamma=dgamma,
            rows=rows, n=n, accumulate=accumulate, out_storage=self.real,
        )  # fmt: skip


def loss_launches(
    storage: str, kernel: str, options: tuple, *, pred: int, target: int, grad: int, row_loss: int, rows: int, n: int,
    scale: int,
) -> list[Launch]:  # fmt: skip
    """The loss `kernel` (of `loss` or `cross_entropy`) of each row, and its gradient times scale[0].

    pred, grad (rows, n); target (rows, n), or (rows,) int64 labels; row_loss (rows,). `options` are what follows the
    scale in the records of the CPU's kernels, class weights by their address.
    """
    asked = {"target": target, "grad": grad, "row_loss": row_loss, "rows": rows, "n": n, "scale": scale}
    if kernel in loss.ELEMENTS:
        return loss.element_launches(
            kernel, storage, pred=pred, terms=0, factor=1.0, options=options, **asked
        )
    names = "label_smoothing", "class_weight", "ignore_index"
    given = dict(zip(names, options, strict=False))
    return cross_entropy.launches(storage, kernel, logits=pred, factor=1.0, divide=False, **asked, **given)
