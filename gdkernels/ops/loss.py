"""The losses of elements, each with its gradient in the same pass."""

from ..check import ABSENT, Array, array, choice, contiguous, float_dtype, number, output
from ..scalar.loss import ELEMENT_LOSSES
from .entrance import everywhere
from .wings import wing

__all__ = ["binary_cross_entropy", "huber", "log_cosh", "mse"]

REDUCTIONS = ("mean", "sum", "none")
DELTA = ELEMENT_LOSSES["huber"].options["delta"].range
POS_WEIGHT = ELEMENT_LOSSES["binary_cross_entropy"].options["pos_weight"].range
Loss = float | Array


def _of_elements(
    op: str,
    pred: Array,
    target: Array,
    grad: Array | None,
    reduction: str,
    options: tuple[float, ...] = (),
) -> Loss:
    """The loss of this name in `scalar.loss`; its options are checked already."""
    name, inputs = ELEMENT_LOSSES[op].prediction, (pred, target)
    dtype, why = float_dtype(op, name, pred), f"it must match {name}"
    pred = contiguous(pred)
    target = array(op, "target", target, dtype, pred.shape, why)
    choice(op, "reduction", reduction, REDUCTIONS)
    grad_out = ABSENT
    if grad is not None:
        grad_out = output(op, "grad", grad, pred, pred.shape, why, apart_from=inputs)
    loss: Loss = wing(pred, "loss").elements(op, pred, target, grad_out.array, reduction, options)
    grad_out.deliver()
    return loss


@everywhere
def mse(pred: Array, target: Array, grad: Array | None = None, reduction: str = "mean") -> Loss:
    """Mean squared error: (1/n) Σ (pred − target)², n = number of elements.

    Parameters
    ----------
    pred, target : arrays
        float32 or float64, of the same dtype and the same shape, which may be any.
    grad : array like pred, optional
        Receives dL/dpred = (2/n) (pred − target).
    reduction : str
        "mean"; "sum", the same without 1/n; "none", the array of the terms (`grad` is then the gradient of their sum).

    Returns
    -------
    float, on the GPU an array of shape (), or an array like pred for "none"
        Terms are in the dtype of pred, their sum in float64. The mean over nothing is NaN.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where the shapes differ (nothing is broadcast), the reduction is unknown, or `grad` overlaps an input.
    """
    return _of_elements("mse", pred, target, grad, reduction)


@everywhere
def huber(
    pred: Array, target: Array, delta: float = 1.0, grad: Array | None = None, reduction: str = "mean"
) -> Loss:
    """Huber's loss: (1/n) Σ of e²/2 where |e| ≤ delta, else delta (|e| − delta/2), with e = pred − target [1]_.

    Parameters
    ----------
    pred, target : arrays
        float32 or float64, of the same shape and dtype.
    delta : float
        > 0: the error beyond which the loss grows linearly, so that outliers pull with a bounded force.
    grad : array like pred, optional
        Receives dL/dpred, e held in [−delta, delta], divided by n.
    reduction : str
        "mean", "sum" or "none", as in `mse`.

    Returns
    -------
    float, on the GPU an array of shape (), or an array like pred for "none"

    Raises
    ------
    TypeError, ValueError
        As `mse`; ValueError also where delta is not positive.

    References
    ----------
    .. [1] P. J. Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964).
    """
    delta = number("huber", "delta", delta, DELTA)
    return _of_elements("huber", pred, target, grad, reduction, (delta,))


@everywhere
def log_cosh(pred: Array, target: Array, grad: Array | None = None, reduction: str = "mean") -> Loss:
    """Log-cosh loss: (1/n) Σ log cosh(e), e = pred − target: e²/2 near 0, |e| − log 2 far out [1]_.

    Parameters
    ----------
    pred, target : arrays
        float32 or float64, of the same shape and dtype.
    grad : array like pred, optional
        Receives dL/dpred = tanh(e) / n: outliers pull with a bounded force, as with `huber`, but without a kink.
    reduction : str
        "mean", "sum" or "none", as in `mse`.

    Returns
    -------
    float, on the GPU an array of shape (), or an array like pred for "none"

    Raises
    ------
    TypeError, ValueError
        As `mse`.

    References
    ----------
    .. [1] R. A. Saleh, A. K. Md. E. Saleh, Statistical properties of the log-cosh loss function used in machine
       learning, arXiv 2208.04564 (2022).
    """
    return _of_elements("log_cosh", pred, target, grad, reduction)


@everywhere
def binary_cross_entropy(
    logits: Array,
    target: Array,
    grad: Array | None = None,
    reduction: str = "mean",
    pos_weight: float = 1.0,
) -> Loss:
    """Cross-entropy of independent yes/no decisions: −(1/n) Σ (w t log p + (1 − t) log(1 − p)), p = sigmoid(logits).

    Computed as w t softplus(−z) + (1 − t) softplus(z), z = logits, which overflows nowhere; dl/dz =
    (1 − t) σ(z) − w t σ(−z), which for w = 1 is p − t. As PyTorch's ``binary_cross_entropy_with_logits``.

    Parameters
    ----------
    logits, target : arrays
        float32 or float64, of the same shape and dtype; targets t in [0, 1].
    grad : array like logits, optional
        Receives dL/dlogits.
    reduction : str
        "mean", "sum" or "none", as in `mse`.
    pos_weight : float
        w, the weight of the positive part, > 0.

    Returns
    -------
    float, on the GPU an array of shape (), or an array like logits for "none"

    Raises
    ------
    TypeError, ValueError
        As `mse`; ValueError also where pos_weight is not positive and finite.
    """
    op = "binary_cross_entropy"
    pos_weight = number(op, "pos_weight", pos_weight, POS_WEIGHT)
    return _of_elements(op, logits, target, grad, reduction, (pos_weight,))
