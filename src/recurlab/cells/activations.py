"""The activation functions that a cell may be given by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from recurlab.table import Table

if TYPE_CHECKING:
    from torch import Tensor

Activation = Callable[["Tensor"], "Tensor"]

ACTIVATIONS = Table(
    "activation",
    {
        "linear": "recurlab.cells.activations:linear",
        "tanh": "torch:tanh",
        "relu": "torch:relu",
        "sigmoid": "torch:sigmoid",
        "leaky_relu": "torch.nn.functional:leaky_relu",
        "elu": "torch.nn.functional:elu",
        "selu": "torch:selu",
        "gelu": "torch.nn.functional:gelu",
        "silu": "torch.nn.functional:silu",
        "mish": "torch.nn.functional:mish",
        "softplus": "torch.nn.functional:softplus",
        "softsign": "torch.nn.functional:softsign",
        "hardtanh": "torch.nn.functional:hardtanh",
        "hardsigmoid": "torch.nn.functional:hardsigmoid",
        "sin": "torch:sin",
    },
)


def activation(name: str | None) -> Activation:
    """Return the activation of a name; None is linear."""
    found: Activation = ACTIVATIONS["linear" if name is None else name]
    return found


def check_activation(key: str, name: str | None) -> None:
    """Raise unless `name` is that of an activation, or None."""
    if name is not None:
        ACTIVATIONS.check(key, name)


def linear(x: "Tensor") -> "Tensor":
    """Return x as it is."""
    return x
