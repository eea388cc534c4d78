"""The options of a layer for its weights: initialiser, constraint and regulariser of each kind of weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recurlab.errors import RecurlabError, check_instance, shown
from recurlab.layers.constraints import Constraint
from recurlab.layers.initializers import Initializer
from recurlab.layers.regularizers import Regularizer


@dataclass(frozen=True)
class Weights:
    """Initialiser, constraint and regulariser of one kind of weight: input weights, recurrent weights or biases.

    Attributes:
        init: fills the weights; None draws them as torch does, from U(-1/sqrt(H), 1/sqrt(H)).
        last_init: fills those of the last layer; None is `init`.
        constraint: holds the weights in bounds when `RNN.constrain` is called; None leaves them
            free.
        regularizer: is added to `RNN.penalty`; None adds nothing.

    Raises:
        RecurlabError: for an attribute of another class.
    """

    init: Initializer | None = None
    last_init: Initializer | None = None
    constraint: Constraint | None = None
    regularizer: Regularizer | None = None

    def __post_init__(self) -> None:
        for name, base in CLASSES.items():
            check_instance(name, getattr(self, name), base)


CLASSES: dict[str, type] = {
    "init": Initializer,
    "last_init": Initializer,
    "constraint": Constraint,
    "regularizer": Regularizer,
}
ARGUMENTS = {"input": "input_weights", "recurrent": "recurrent_weights", "bias": "biases"}  # of `RNN`, by kind
# The arguments of `RNN` for one attribute alone: recurrent_init=x is recurrent_weights=Weights(init=x).
SINGLE = {
    f"{kind}_{name}": (argument, name)
    for name in ("init", "constraint", "regularizer")
    for kind, argument in ARGUMENTS.items()
} | {"last_recurrent_init": ("recurrent_weights", "last_init")}


def split_weights(options: Mapping[str, Any]) -> tuple[dict[str, Weights], dict[str, Any]]:
    """Return the `Weights` among a layer's options, by argument, and the other options.

    Raises:
        RecurlabError: for a value of another class, or an attribute that is given twice.
    """
    rest = dict(options)
    single: dict[str, dict[str, Any]] = {argument: {} for argument in ARGUMENTS.values()}
    for key, (argument, name) in SINGLE.items():
        value = rest.pop(key, None)
        check_instance(key, value, CLASSES[name])
        if value is None:
            continue
        if rest.get(argument) is not None:
            raise RecurlabError(f"{key}={shown(value)}: give it as {argument}=Weights({name}=...), which is given too")
        single[argument][name] = value
    made = {}
    for argument, attributes in single.items():
        given = rest.pop(argument, None)
        check_instance(argument, given, Weights)
        made[argument] = given or Weights(**attributes)
    return made, rest
