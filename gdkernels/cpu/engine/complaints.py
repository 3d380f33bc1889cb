"""What compiled code of a user raises when a view is used wrongly.

Compiled code knows numbers alone: the exceptions hold these, and put their message together when Python asks for it.
"""

PREDICTING, GOING_BACK, STEPPING = range(3)
OPS = ("Network.jitted().predict", "Network.jitted().vjp", "Trainer.jitted().step")
NAMES = ("x", "out", "dy", "dx", "y")
X, OUT, DY, DX, Y = range(5)
SAMPLE, ANY = -1, -2  # instead of a number of rows: there are none, and any


def _shape(rows: int, columns: int) -> str:
    if rows == SAMPLE:
        return f"({columns},)"
    return f"(n, {columns})" if rows == ANY else f"({rows}, {columns})"


class ShapeError(ValueError):
    """A batch of the wrong shape, met by compiled code: (operation, argument, shape found, shape expected)."""

    def __str__(self) -> str:
        op, name, rows, columns, wanted_rows, wanted_columns = self.args
        wanted = _shape(wanted_rows, wanted_columns)
        why = f" because x has {wanted_rows} rows" if wanted_rows >= 0 else ""
        return f"{OPS[op]}: {NAMES[name]} has shape {_shape(rows, columns)}, expected {wanted}{why}"


class LabelShapeError(ValueError):
    """Targets in one dimension that are not as many as there are rows: (number found, rows)."""

    def __str__(self) -> str:
        found, rows = self.args
        return f"{OPS[STEPPING]}: y has shape ({found},), expected ({rows},) because x has {rows} rows"


class TargetKindError(TypeError):
    """Labels where the loss wants values (True), or values where it wants labels (False)."""

    def __str__(self) -> str:
        found, wanted = ("labels", "values") if self.args[0] else ("values", "labels")
        return f"{OPS[STEPPING]}: y holds {found}, expected {wanted} for the loss of the trainer"


class NoRowsError(ValueError):
    """A batch without rows: (columns,)."""

    def __str__(self) -> str:
        return f"{OPS[STEPPING]}: x has shape (0, {self.args[0]}), expected at least one row"


class LabelError(ValueError):
    """A label that is no class: (row, label, classes)."""

    def __str__(self) -> str:
        row, label, classes = self.args
        return f"{OPS[STEPPING]}: y[{row}] is {label}, expected a class in [0, {classes})"


class TargetError(ValueError):
    """A target beyond the range of its loss: (row, column, value, lowest, highest)."""

    def __str__(self) -> str:
        row, column, value, low, high = self.args
        return f"{OPS[STEPPING]}: y[{row}, {column}] is {value:g}, expected a number in [{low:g}, {high:g}]"


class RateError(ValueError):
    """A learning rate that is none: (step, rate)."""

    def __str__(self) -> str:
        step, rate = self.args
        return f"{OPS[STEPPING]}: schedule({step}) is {rate}, expected a finite number ≥ 0"


class NotFiniteError(FloatingPointError):
    """A step that was not taken: (steps done before,)."""

    def __str__(self) -> str:
        (done,) = self.args
        return (
            f"{OPS[STEPPING]}: the loss or a gradient of step {done + 1} is not finite; "
            f"the parameters are those after step {done}"
        )


class MovedError(RuntimeError):
    """A view of parameters that are elsewhere by now: (operation,)."""

    def __str__(self) -> str:
        return (
            f"{OPS[self.args[0]]}: the parameters have moved since the view was made, expected them to stay; make a new "
            "view"
        )


class NoRoomError(MemoryError):
    """A batch for which no memory was to be had: (operation, rows)."""

    def __str__(self) -> str:
        op, rows = self.args
        return f"{OPS[op]}: x has {rows} rows, for which there is no memory"
