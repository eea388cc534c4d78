"""What a recurrence computes: one step function in one small file per cell, and the table of their names.

Nothing here imports torch: a config is checked against the cells and their options before that
takes its time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recurlab.errors import RecurlabError, shown
from recurlab.table import Table


@dataclass(frozen=True)
class Preset:
    """A cell under the name that the literature gives to a choice of its recurrence and options.

    Attributes:
        cell: a name in `CELLS`.
        recurrence: its usual one, of `RECURRENCES`.
        options: of the cell, where they are other than its defaults.
    """

    cell: str
    recurrence: str = "dense"
    options: Mapping[str, Any] = field(default_factory=dict)


# A new cell or preset is one line here.
PRESETS = {
    "cudnn_gru": Preset("gru", "dense", {"reset": "after"}),
    "indrnn": Preset("rnn", "diagonal", {"activation": "relu"}),
    "indy_gru": Preset("gru", "diagonal", {"reset": "before"}),
    "indy_lstm": Preset("lstm", "diagonal"),
}
CELLS = Table(
    "cell",
    {
        "gru": "recurlab.cells.gru:GRU",
        "lstm": "recurlab.cells.lstm:LSTM",
        "rnn": "recurlab.cells.rnn:Elman",
        **PRESETS,
    },
)

RECURRENCES = ("dense", "diagonal", "block")


class Named(NamedTuple):
    """What the name of a cell stands for: its class, its usual recurrence, and options other than the defaults."""

    cls: type
    recurrence: str
    options: dict[str, Any]


def named(name: str, key: str = "cell") -> Named:
    """Return what a name in `CELLS` stands for.

    Raises:
        RecurlabError: for an unknown name, with `key` as what was given, or one that stands for no
            cell.
    """
    from recurlab.cells.cell import Cell

    CELLS.check(key, name)
    found, recurrence, options = CELLS[name], "dense", dict[str, Any]()
    if isinstance(found, Preset):
        recurrence, options = found.recurrence, dict(found.options)
        found = CELLS[found.cell]
    if not isinstance(found, type) or not issubclass(found, Cell):
        raise RecurlabError(f"{key}={name!r}: stands for {shown(found)}, must be a subclass of recurlab.Cell")
    return Named(found, recurrence, options)
