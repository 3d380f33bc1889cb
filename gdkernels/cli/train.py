"""Train a network on a data set and report how good it is on samples it has never seen.

DATA is the name of a data set, a .npz file with the arrays x and y, or a .csv file with --target COLUMN. It is
split into 70 % for training, 15 % for validation and 15 % for testing; features are standardised by the mean and
scale of the training part. Options that are not given come from a recipe for the data set.

    gdkernels train digits
    gdkernels train digits --layers 256,256 --norm layer --residual --activation gelu --plot curves.png
    gdkernels train houses.csv --target price --loss huber --epochs 200 --json result.json
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..scalar.init import AUTO
from ..scalar.loss import ELEMENT_LOSSES, SOFTMAX_CROSS_ENTROPY
from ..scalar.optim import RULES
from ..scalar.schedules import SCHEDULES
from .options import (
    DEVICES,
    FOR_CLASSES,
    FOR_NUMBERS,
    STORAGES,
    TASKS,
    WITH_WARMUP,
    add_choice,
    add_training_options,
    count,
    seed,
)
from .recipes import FILE, MOMENTUM, RECIPES, USUAL, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gdkernels.train.data import Dataset, Split, Standardizer

# Those whose targets may be any numbers.
REGRESSION_LOSSES = tuple(name for name, loss in ELEMENT_LOSSES.items() if loss.targets is None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gdkernels train`."""
    parser.add_argument("data", metavar="DATA", help=f"{', '.join(RECIPES)}, or a .npz or .csv file")
    parser.add_argument("--target", metavar="COLUMN", help="the column of a .csv file that is to be learned")
    add_choice(
        parser,
        "--task",
        TASKS,
        "what is to be learned from a file; by default the target decides; one of",
        metavar="TASK",
    )
    add_training_options(parser)
    machine = parser.add_argument_group("machine")
    add_choice(machine, "--device", DEVICES, "where to train; one of", metavar="DEVICE", default="cpu")
    machine.add_argument("--threads", type=count, metavar="N", help="use at most N threads of the CPU")
    add_choice(
        machine,
        "--dtype",
        STORAGES,
        "type of the parameters and the data; bfloat16 on cuda only; one of",
        metavar="DTYPE",
        default="float32",
    )
    machine.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="seed of the split, the initial weights and the order of the samples",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--plot", metavar="FILE.png", help="draw loss, quality and learning rate")
    output.add_argument(
        "--save",
        metavar="FILE.safetensors",
        help="save the trained network; --json saves the scaling that it expects of its input",
    )
    output.add_argument("--json", metavar="FILE.json", help="save the result and everything that led to it")
    output.add_argument("--quiet", action="store_true", help="print only the last line")


@dataclass(frozen=True)
class Prepared:
    """A data set ready for the network, and the way back to its own units."""

    parts: "Split"
    features: "Standardizer"
    targets: "Standardizer | None"
    loss: str
    outputs: int

    def arrays(self, part: "Dataset", dtype: Any) -> "tuple[NDArray[Any], NDArray[Any]]":
        """Standardised features, and what the loss compares with: labels, one-hot rows, or scaled numbers."""
        import numpy as np

        x = self.features.transform(part.x).astype(dtype)
        if self.targets is not None:
            return x, self.targets.transform(part.y).astype(dtype)
        if self.loss == SOFTMAX_CROSS_ENTROPY:
            return x, part.y
        if self.outputs == 1:
            return x, part.y[:, None].astype(dtype)
        return x, np.eye(self.outputs, dtype=dtype)[part.y]

    def quality(self, outputs: "NDArray[Any]", part: "Dataset") -> float:
        """Accuracy, or R² in the target's own units (the mean over several outputs)."""
        import numpy as np

        from gdkernels.train.loss import accuracy, classes, r2

        if self.targets is None:
            return accuracy(classes(outputs), part.y)
        return r2(self.targets.inverse(outputs.astype(np.float64)), part.y)


def run(options: argparse.Namespace) -> int:
    """Check everything, then train, test and write."""
    recipe = choose(options)
    check_outputs(options)
    data = prepare(options, recipe)

    import gdkernels as gd
    from gdkernels import cache

    if cache.is_empty() and not options.quiet:
        print("compiling kernels, once on this machine: some seconds", file=sys.stderr, flush=True)

    train, validation, test = data.parts
    net = gd.mlp(
        [train.x.shape[1], *recipe.layers, data.outputs],
        activation=recipe.activation,
        norm=None if recipe.norm == "none" else recipe.norm,
        residual=recipe.residual,
        dropout=recipe.dropout,
        init=recipe.init,
        seed=options.seed,
        dtype=options.dtype,
    )
    net.to(options.device)
    batch = len(train) if recipe.batch == "full" else min(recipe.batch, len(train))
    trainer = gd.Trainer(
        net,
        loss=data.loss,
        optimizer=optimizer(recipe),
        schedule=schedule(recipe, steps=-(-len(train) // batch) * recipe.epochs),
        clip_norm=recipe.clip,
        threads=options.threads,
    )
    if not options.quiet:
        print(describe(data, recipe, options, sum(p.size for p in net.params.values())), flush=True)
    x, y = data.arrays(train, net.dtype)
    trainer.warm_up(x[:1], y[:1])
    start = time.perf_counter()
    history = trainer.fit(
        x,
        y,
        epochs=recipe.epochs,
        batch_size=batch,
        seed=options.seed,
        validation=data.arrays(validation, net.dtype),
        progress=not options.quiet,
    )
    seconds = time.perf_counter() - start
    quality = data.quality(net.predict(data.arrays(test, net.dtype)[0]), test)
    result = report(data, recipe, options, history, quality, seconds)
    write(options, net, history, result)
    if not options.quiet:
        print(
            f"{len(history.loss)} steps in {seconds:.2f} s, {result['steps_per_second']:.0f} a second, "
            f"{used(net.device, result['threads'])}"
        )
    print(last_line(data, quality))
    return 0


def choose(options: argparse.Namespace) -> Recipe:
    """The recipe of the data set, with the given options in their places."""
    recipe = RECIPES.get(options.data, FILE)
    given = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("optimizer", recipe.optimizer) != recipe.optimizer:
        # What suits one optimizer is far off for another.
        rule = RULES[given["optimizer"]]
        lr, weight_decay = USUAL.get(given["optimizer"], (rule.lr, rule.weight_decay))
        recipe = replace(recipe, lr=lr, weight_decay=weight_decay)
    recipe = replace(recipe, **given)
    if "warmup" in given and recipe.schedule not in WITH_WARMUP:
        raise ValueError(
            f"--warmup is given, but the schedule is {recipe.schedule}, expected {', '.join(WITH_WARMUP)}"
        )
    return recipe


def check_outputs(options: argparse.Namespace) -> None:
    """Everything that could go wrong after the training is tried before it."""
    from gdkernels.files import check_writable

    if options.device == "cpu" and options.dtype == "bfloat16":
        raise ValueError("--dtype is bfloat16, expected float32 or float64 because --device is cpu")
    if options.device == "cuda" and options.threads:
        raise ValueError("--threads is given, but --device is cuda, where CPU threads have no effect")
    if options.device == "cuda":
        from gdkernels import cuda

        if not cuda.is_available():
            reason = cuda.describe().removeprefix("not seen: ")
            raise ValueError(f"--device is cuda, but no GPU is seen: {reason}")
    paths = {flag: getattr(options, flag) for flag in ("plot", "save", "json") if getattr(options, flag)}
    taken = {Path(options.data).resolve(): "DATA"}
    for flag, path in paths.items():
        check_writable(path)
        other = taken.setdefault(Path(path).resolve(), f"--{flag}")
        if other != f"--{flag}":
            raise ValueError(f"--{flag} is {path!r}, which is already {other}")
    if options.plot:
        from gdkernels.train.plot import check_plotting

        check_plotting()


def prepare(options: argparse.Namespace, recipe: Recipe) -> Prepared:
    """Load, split and measure the data, and settle the loss."""
    from gdkernels.train.data import Standardizer, load, split

    dataset = load(options.data, target=options.target, task=options.task)
    classes = dataset.task == "classification"
    loss = recipe.loss
    if loss == AUTO:
        loss = FOR_CLASSES if classes else FOR_NUMBERS
    if not classes and loss not in REGRESSION_LOSSES:
        expected = " or ".join(REGRESSION_LOSSES)
        raise ValueError(f"--loss is {loss}, expected {expected} because {dataset.name} is a regression")
    parts = split(dataset, options.seed)
    return Prepared(
        parts=parts,
        features=Standardizer.fit(parts.train.x, shared=dataset.shared_unit),
        targets=None if classes else Standardizer.fit(parts.train.y),
        loss=loss,
        # Two classes are one yes or no.
        outputs=1 if loss == "binary_cross_entropy" and dataset.outputs == 2 else dataset.outputs,
    )


def optimizer(recipe: Recipe) -> Any:
    """The recipe's optimizer with its rates."""
    from gdkernels.train.optim import BY_NAME

    extra = {"momentum": MOMENTUM} if recipe.optimizer == "sgd" else {}
    return BY_NAME[recipe.optimizer](lr=recipe.lr, weight_decay=recipe.weight_decay, **extra)


def schedule(recipe: Recipe, steps: int) -> Any:
    """The recipe's schedule over this many steps."""
    from gdkernels.train.schedules import FORMULAS

    asked = SCHEDULES[recipe.schedule].counts
    warmup = recipe.warmup if isinstance(recipe.warmup, int) else round(recipe.warmup * steps)
    if "total" in asked:  # of which the warm-up is a part
        warmup = min(warmup, steps)
    known = {"warmup": warmup, "total": steps, "every": max(steps // 3, 1), "period": max(steps // 4, 1)}
    make: Any = FORMULAS[recipe.schedule]
    return make(recipe.lr, **{name: known[name] for name in asked if name in known})


def describe(data: Prepared, recipe: Recipe, options: argparse.Namespace, parameters: int) -> str:
    """Two lines on what is about to happen."""
    train, validation, test = data.parts
    features = train.x.shape[1]
    if train.task == "classification":
        shown = ", ".join(train.classes[:10]) + ", …" * (len(train.classes) > 10)
        goal = f"{len(train.classes)} classes ({shown})"
    else:
        goal = f"{data.outputs} number{'s' * (data.outputs != 1)}"
    sizes = "-".join(map(str, (features, *recipe.layers, data.outputs)))
    return (
        f"{train.name}: {features} features, {goal} · {len(train)} samples to train, "
        f"{len(validation)} to validate, {len(test)} to test\n"
        f"network {sizes} {recipe.activation}, {parameters} parameters · {data.loss}, {recipe.optimizer}, "
        f"{recipe.schedule} up to {recipe.lr:g} · {recipe.epochs} epoch{'s' * (recipe.epochs != 1)} · {options.dtype}"
    )


def last_line(data: Prepared, quality: float) -> str:
    """The result."""
    samples = len(data.parts.test)
    if math.isnan(quality):
        said = "1 sample" if samples == 1 else f"{samples} samples without any spread"
        return f"test R² undefined ({said})"
    if data.targets is not None:
        return f"test R² {quality:.4f} ({samples} samples)"
    return f"test accuracy {quality:.4f} ({round(quality * samples)} of {samples})"


def used(device: str, threads: int) -> str:
    """What the training ran on."""
    if device == "cuda":
        from gdkernels import cuda

        return f"on {cuda.describe()}"
    return f"at most {threads} thread{'s' * (threads != 1)}"


def report(
    data: Prepared, recipe: Recipe, options: argparse.Namespace, history: Any, quality: float, seconds: float
) -> dict[str, Any]:
    """What --json saves: the result, the request, and the scaling that the saved network expects."""
    import gdkernels as gd
    from gdkernels.cpu.runtime import team

    last = history.epochs[-1]
    train, validation, test = data.parts
    return {
        "data": options.data,
        "task": train.task,
        "test_r2" if data.targets is not None else "test_accuracy": quality,
        "train_loss": last["train_loss"],
        "validation_loss": last["validation_loss"],
        "steps": len(history.loss),
        "seconds": seconds,
        "steps_per_second": len(history.loss) / seconds,
        "threads": options.threads or team.get_threads(),
        "device": options.device,
        "dtype": options.dtype,
        "seed": options.seed,
        "version": gd.__version__,
        **asdict(recipe),
        "loss": data.loss,
        "samples": {"train": len(train), "validation": len(validation), "test": len(test)},
        "classes": list(train.classes),
        "input_mean": data.features.mean.tolist(),
        "input_scale": data.features.scale.tolist(),
        "output_mean": None if data.targets is None else data.targets.mean.tolist(),
        "output_scale": None if data.targets is None else data.targets.scale.tolist(),
    }


def write(options: argparse.Namespace, net: Any, history: Any, result: dict[str, Any]) -> None:
    """The files that were asked for, each whole or not at all."""
    from gdkernels.files import replacing

    if options.save:
        net.save(options.save)
    if options.plot:
        from gdkernels.train.plot import plot_history

        name = "accuracy" if "test_accuracy" in result else "R²"
        quality = result.get("test_accuracy", result.get("test_r2"))
        plot_history(history, options.plot, title=f"{Path(options.data).name} · test {name} {quality:.4f}")
    if options.json:
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in result.items()
        }
        with replacing(options.json) as temporary:
            temporary.write_text(json.dumps(finite, indent=2, allow_nan=False) + "\n", encoding="utf-8")
