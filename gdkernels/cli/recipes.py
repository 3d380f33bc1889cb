"""How `gdkernels train` trains when nothing else is asked for: one recipe for each data set.

Each has the lowest mean validation loss, over twenty splits (three for mnist5k), of a handful that were tried; for
mnist5k a wider network with smaller batches was level with it and took twice as long. The test part had no say.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Everything about a training run that does not follow from the data.

    Attributes
    ----------
    layers : widths of the hidden layers
    warmup : steps, or a fraction of all steps where it is a float
    """

    layers: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    norm: str = "none"
    residual: bool = False
    dropout: float = 0.0
    init: str = "auto"
    loss: str = "auto"
    optimizer: str = "adamw"
    lr: float = 3e-3
    weight_decay: float = 0.01
    schedule: str = "warmup_cosine"
    warmup: int | float = 0.1
    clip: float | None = None
    batch: int | Literal["full"] = 32
    epochs: int = 40


RECIPES = {
    "digits": Recipe(layers=(128, 128), activation="gelu", dropout=0.4),
    "wine": Recipe(layers=(64,), activation="gelu", dropout=0.3, weight_decay=0.05, batch=16, epochs=100),
    "breast_cancer": Recipe(
        layers=(64,), activation="gelu", dropout=0.2, weight_decay=0.5, batch=16, epochs=60
    ),
    # 310 noisy training samples: the network must not learn them by heart.
    "diabetes": Recipe(layers=(256,), activation="gelu", dropout=0.5, weight_decay=1.0, epochs=50),
    "mnist5k": Recipe(
        layers=(512, 256), activation="gelu", dropout=0.4, lr=1e-3, weight_decay=0.2, batch=64, epochs=25
    ),
}

# A file of the user; small tables are the likely case.
FILE = Recipe(dropout=0.1, weight_decay=0.05)

MOMENTUM = 0.9  # of sgd

# The learning rate and weight decay that an optimizer gets where it is not the recipe's own; its defaults, if not these.
USUAL = {
    "sgd": (0.005, 1e-4),  # with momentum; at 0.02 the diabetes recipe diverges
    "rmsprop": (1e-3, 0.0),
    "adam": (3e-3, 0.0),
    "adamw": (3e-3, 0.01),
    "amsgrad": (3e-3, 0.0),
    "lion": (3e-4, 0.1),
}
