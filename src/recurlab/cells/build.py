"""From a cell's name, options and recurrence to the cell and its recurrence; users' cells register here too."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from recurlab.cells import CELLS, PRESETS
from recurlab.cells.cell import Cell
from recurlab.cells.recurrence import Recurrence
from recurlab.errors import RecurlabError, unknown

C = TypeVar("C", bound=type[Cell])


def register_cell(name: str) -> Callable[[C], C]:
    """Return a class decorator that makes a `Cell` known under `name`, in Python and on the command line."""
    if name in PRESETS:
        raise RecurlabError(f"cell={name!r}: this name is taken, choose another")
    return CELLS.register(name)


def build_cell(
    cell: str | Cell, recurrence: str | None, heads: int, options: Mapping[str, Any]
) -> tuple[Cell, Recurrence]:
    """Return a cell and its recurrence.

    Args:
        cell: a name, a preset's name, or a cell already made.
        recurrence: dense, diagonal or block; None takes the preset's, or dense.
        heads: blocks of a block recurrence.
        options: arguments of the cell's class, which override a preset's.

    Raises:
        RecurlabError: for an unknown cell or option, or a value that the cell refuses.
    """
    if isinstance(cell, Cell):
        if options:
            raise unknown("RNN argument", next(iter(options)), ())
        made, usual = cell, "dense"
    else:
        if cell not in PRESETS and cell not in CELLS:
            raise unknown("cell", cell, [*CELLS, *PRESETS])
        merged = {"cell": cell, "recurrence": "dense", **PRESETS.get(cell, {}), **options}
        usual = merged.pop("recurrence")
        made = _construct(CELLS[merged.pop("cell")], cell, merged)
    made.phases  # noqa: B018  a faulty step is found here, not in the first batch
    return made, Recurrence(recurrence or usual, heads)


def _construct(kind: type[Cell], name: str, options: Mapping[str, Any]) -> Cell:
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise unknown(f"option of cell {name!r}", option, known)
    return kind(**options)
