"""`recurlab.RNN` and what surrounds a cell: direction, masks, state, regularisers, constraints, initialisers."""

from typing import TYPE_CHECKING

from recurlab.errors import unknown
from recurlab.lazy import importer
from recurlab.table import Table

if TYPE_CHECKING:
    from recurlab.layers.options import Weights

__all__ = [
    "CONSTRAINTS",
    "INITIALIZERS",
    "LAYER_NORMS",
    "MASKED_OUTPUTS",
    "REGULARIZERS",
    "Weights",
    "check_layer_norm",
]

MASKED_OUTPUTS = ("zero", "hold")  # what a layer gives at a masked step: 0, or its last output
LAYER_NORMS = ("gate", "input", "rms")  # beside True and False

INITIALIZERS = Table(
    "initializer",
    {
        "uniform": "recurlab.layers.initializers:Uniform",
        "normal": "recurlab.layers.initializers:Normal",
        "constant": "recurlab.layers.initializers:Constant",
        "glorot": "recurlab.layers.initializers:Glorot",
        "orthogonal": "recurlab.layers.initializers:Orthogonal",
        "identity": "recurlab.layers.initializers:Identity",
        "indrnn": "recurlab.layers.initializers:IndRNN",
    },
)

CONSTRAINTS = Table(
    "constraint",
    {
        "max_abs": "recurlab.layers.constraints:MaxAbs",
        "max_norm": "recurlab.layers.constraints:MaxNorm",
        "unit_norm": "recurlab.layers.constraints:UnitNorm",
        "non_negative": "recurlab.layers.constraints:NonNegative",
        "indrnn": "recurlab.layers.constraints:IndRNNBound",
    },
)

REGULARIZERS = Table(
    "regularizer",
    {
        "l1": "recurlab.layers.regularizers:L1",
        "l2": "recurlab.layers.regularizers:L2",
        "l1_l2": "recurlab.layers.regularizers:L1L2",
        "orthogonal": "recurlab.layers.regularizers:Orthogonal",
    },
)


def check_layer_norm(key: str, value: object) -> None:
    """Raise unless `value` is a choice of layer normalisation."""
    if not isinstance(value, bool) and value not in LAYER_NORMS:
        raise unknown(key, value, ["True", "False", *LAYER_NORMS])


__getattr__ = importer(__name__, {"Weights": "recurlab.layers.options"})
