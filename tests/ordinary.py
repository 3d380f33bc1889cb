"""An ordinary call of every operation that has a door, and the two ways it can go: through the door and past it."""

import inspect
from contextlib import contextmanager

import numpy as np

import gdkernels as gd
from gdkernels.cpu import doors
from gdkernels.scalar.activation import SAVED
from gdkernels.scalar.optim import RULES

NAMES = doors.NAMES
OPTIMIZERS = tuple(name for name in NAMES if name.endswith("_step"))
OF_MANY = ("clip_by_global_norm", "global_norm")  # which take any number of arrays
SIZES = (6, 5, 7)  # m, k, n


def arguments(name: str, dtype: str, rng: np.random.Generator, sizes=SIZES) -> dict:
    """The arguments of a call by name, in the order of the parameters; those of `OF_MANY` are numbered arrays."""
    m, k, n = sizes

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def positive(*shape):
        return rng.uniform(0.5, 2.0, shape).astype(dtype)

    if name.endswith("_step"):
        rule = RULES[name.removesuffix("_step")]
        given = {"p": normal(m, n), "g": normal(m, n)} | {state: positive(m, n) for state in rule.states}
        given |= {"step": 3} if "step" in inspect.signature(getattr(gd, name)).parameters else {}
        return given | {"lr": 0.1} | ({"momentum": 0.9} if name == "sgd_step" else {})
    match name:
        case "activation":
            return {"z": normal(m, n), "kind": "gelu"}
        case "activation_backward":
            return {
                "da": normal(m, n),
                "saved": normal(m, n),
                "kind": "silu",
                "out": normal(m, n),
                "db": normal(n),
            }
        case "clip_by_global_norm":
            return {"max_norm": 0.5, "0": normal(m, n), "1": normal(k)}
        case "global_norm":
            return {"0": normal(m, n), "1": normal(k)}
        case "softmax_cross_entropy":
            target = rng.integers(0, n, m) if n else np.zeros(m, np.int64)
            return {"logits": normal(m, n), "target": target, "grad": normal(m, n)}
        case "dropout":
            return {"x": normal(m, n), "p": 0.3, "seed": 7, "offset": 11}
        case "dropout_backward":
            return {"dy": normal(m, n), "p": 0.3, "seed": 7, "offset": 11}
        case "linear":
            return {
                "x": normal(m, k),
                "w": normal(k, n),
                "b": normal(n),
                "activation": "tanh",
                "z": normal(m, n),
            }
        case "linear_backward":
            return {
                "da": normal(m, n),
                "x": normal(m, k),
                "w": normal(k, n),
                "saved": normal(m, n),
                "activation": "tanh",
            }
        case "binary_cross_entropy":
            return {
                "logits": normal(m, n),
                "target": rng.uniform(0, 1, (m, n)).astype(dtype),
                "grad": normal(m, n),
            }
        case "mse" | "huber" | "log_cosh":
            return {"pred": normal(m, n), "target": normal(m, n), "grad": normal(m, n)}
        case "matmul":
            return {"a": normal(m, k), "b": normal(k, n)}
        case "layernorm":
            return {"x": normal(m, n), "gamma": normal(n), "beta": normal(n), "stats": normal(m, 2)}
        case "layernorm_backward":
            return {"dy": normal(m, n), "x": normal(m, n), "gamma": normal(n), "stats": positive(m, 2)}
        case "rmsnorm":
            return {"x": normal(m, n), "gamma": normal(n), "stats": normal(m)}
        case "rmsnorm_backward":
            return {"dy": normal(m, n), "x": normal(m, n), "gamma": normal(n), "stats": positive(m)}
        case "scale":
            return {"x": normal(m, n), "gamma": normal(n)}
        case "scale_backward":
            return {"dy": normal(m, n), "x": normal(m, n), "gamma": normal(n)}
        case "softmax" | "log_softmax":
            return {"x": normal(m, n)}
    raise ValueError(name)


def by(way, name: str, *args, **given):
    """A call with arguments as people write them, one way; with no more threads than a door may use."""
    bound = inspect.signature(getattr(gd, name)).bind(*args, **given)
    bound.apply_defaults()
    before = gd.get_threads()
    gd.set_threads(1)
    try:
        getattr(gd, name)(*bound.args)  # the door learns what it can
        made = way(name, bound.args)
    finally:
        gd.set_threads(before)
    assert made is not None
    return made


@contextmanager
def in_place_of(loops: dict, name: str, word: str, wrong):
    """Another loop in the place of one, past the door of the operation and behind it."""
    right, door = loops[word], doors.find(name)
    place = [*inspect.signature(getattr(gd, name)).parameters].index("kind")
    try:
        loops[word] = wrong
        door.choose("float32", place, word)
        yield
    finally:
        loops[word] = right
        door.choose("float32", place, word)


# What else a call may say, by operation: each is put over its ordinary arguments, where a text in the place of an array
# stands for the argument of that name, and a tuple for a new array of these letters.
VARIANTS = {
    "activation": [{"kind": kind} for kind in SAVED] + [{"out": "z"}],
    "activation_backward": [
        *({"kind": kind, "db": db} for kind in SAVED for db in (None, ("n",))), {"out": "da"}, {"out": "saved", "db": None},
        {"kind": "identity", "saved": None, "out": "da"}, {"out": None},
    ],
    "softmax_cross_entropy": [
        {"grad": None}, {"reduction": "sum"}, {"reduction": "none"}, {"label_smoothing": 0.1}, {"ignore_index": 1},
        {"class_weight": ("n",), "label_smoothing": 0.2, "ignore_index": 0}, {"target": ("m", "n")},
        {"target": ("m", "n"), "class_weight": ("n",), "reduction": "sum", "label_smoothing": 1},
    ],
    "dropout": [{"p": 0.0}, {"p": 1.0}, {"seed": -5, "offset": 2**62 + 3}, {"out": "x"}, {"seed": np.int64(9), "offset": 3}],
    "linear": [
        *({"activation": kind} for kind in SAVED), {"b": None}, {"z": None}, {"b": None, "z": None, "activation": "relu"},
        {"activation": "identity", "b": None, "z": None}, {"out": ("m", "n")},
    ],
    "linear_backward": [
        *({"activation": kind} for kind in SAVED), {"activation": "identity", "saved": None}, {"need_dx": False},
        {"dw": ("k", "n"), "db": ("n",), "accumulate": True}, {"dx": ("m", "k"), "need_dx": False}, {"dx": ("m", "k")},
    ],
    "binary_cross_entropy": [{"pos_weight": 3.0}],
    "huber": [{"delta": 0.3}, {"delta": 2}],
    "matmul": [{"out": ("m", "n"), "accumulate": True}, {"out": ("m", "n")}],
    "layernorm": [
        {"residual": ("m", "n")}, {"residual": ("m", "n"), "out": "residual"}, {"stats": None}, {"out": "x", "eps": 0},
    ],
    "rmsnorm": [
        {"residual": ("m", "n")}, {"residual": ("m", "n"), "out": "residual"}, {"stats": None}, {"out": "x", "eps": 0},
    ],
    "layernorm_backward": [{"residual": ("m", "n")}, {"dx": "dy"}, {"dgamma": ("n",), "dbeta": ("n",)}],
    "rmsnorm_backward": [{"residual": ("m", "n")}, {"dx": "x"}, {"dgamma": ("n",)}],
    "scale": [{"out": "x"}],
    "scale_backward": [{"dx": "dy"}, {"dx": "x"}, {"dgamma": ("n",)}],
    "softmax": [{"out": "x"}],
    "log_softmax": [{"out": "x"}],
    "sgd_step": [{"momentum": 0.0}, {"momentum": 0.0, "velocity": None}, {"nesterov": True, "weight_decay": 0.1}],
    "clip_by_global_norm": [{"max_norm": 1e9}, {"max_norm": float("inf")}, {"max_norm": 0}],
}  # fmt: skip
for _name in NAMES:
    VARIANTS[_name] = [{}, *VARIANTS.get(_name, [])]
for _name in ("binary_cross_entropy", "huber", "log_cosh", "mse"):
    VARIANTS[_name] += [{"grad": None}, {"reduction": "sum"}, {"reduction": "none"}]
for _name in OPTIMIZERS:
    VARIANTS[_name] += [{"weight_decay": 0.01, "lr": 1}]


def varied(given: dict, change: dict, dtype: str, rng: np.random.Generator, sizes=SIZES) -> dict:
    """The arguments with what a variant says put over them."""
    lengths = dict(zip("mkn", sizes, strict=True))
    made = dict(given)
    for key, value in change.items():
        if isinstance(value, tuple):
            value = rng.uniform(0.1, 1.0, [lengths[letter] for letter in value]).astype(dtype)
        made[key] = value
    for key, value in change.items():
        if isinstance(value, str) and isinstance(made.get(value), np.ndarray):
            made[key] = made[value]
    return made


def placed(name: str, given: dict) -> tuple:
    """The arguments by place, with the defaults of those that are not given."""
    if name in OF_MANY:
        return tuple(given.values())
    bound = inspect.signature(getattr(gd, name)).bind(**given)
    bound.apply_defaults()
    return bound.args


def through_door(name: str, args: tuple):
    """What the door itself gives: None where it refuses. A call before lets it learn what it can."""
    return getattr(gd, name).__globals__["enter"](*args)


def past_door(name: str, args: tuple):
    """What the operation gives without its door."""
    return getattr(gd, name).__wrapped__(*args)
