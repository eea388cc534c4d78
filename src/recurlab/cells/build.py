"""From a cell's name, options and recurrence to the cell and its recurrence; users' cells register here too."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from recurlab.cells import CELLS, PRESETS
from recurlab.cells.cell import Cell
from recurlab.cells.recurrence import Recurrence
from recurlab.cells.watch import check_holds_no_weights
from recurlab.errors import RecurlabError, one_line, unknown

C = TypeVar("C", bound=type[Cell])


def register_cell(name: str) -> Callable[[C], C]:
    """Return a class decorator that makes a `Cell` known under `name`, in Python and on the command line."""
    if name in PRESETS:
        raise RecurlabError(f"cell={name!r}: this name is taken, choose another")
    return CELLS.register(name)


def build_cell(
    cell: str | Cell,
    recurrence: str | None,
    heads: int,
    options: Mapping[str, Any],
    arguments: Iterable[str] = (),
) -> tuple[Cell, Recurrence]:
    """Return a cell and its recurrence.

    Args:
        cell: a name, a preset's name, or a cell already made.
        recurrence: dense, diagonal or block; None takes the preset's, or dense.
        heads: blocks of a block recurrence.
        options: arguments of the cell's class, which override a preset's.
        arguments: what else the caller takes, for the hint when an option is misspelt.

    Raises:
        RecurlabError: for an unknown cell or option, or a value that the cell refuses.
    """
    if isinstance(cell, Cell):
        for option in options:
            raise unknown("argument", option, arguments)
        made, usual = cell, "dense"
    else:
        if not isinstance(cell, str) or (cell not in PRESETS and cell not in CELLS):
            raise unknown("cell", cell, [*CELLS, *PRESETS])
        merged = {"cell": cell, "recurrence": "dense", **PRESETS.get(cell, {}), **options}
        usual = merged.pop("recurrence")
        made = _construct(CELLS[merged.pop("cell")], cell, merged, arguments)
    check_holds_no_weights(made)
    made.phases, made.token  # noqa: B018  a faulty step is found here, and the layer can be compiled as one graph
    return made, Recurrence(recurrence or usual, heads)


def _construct(kind: type[Cell], name: str, options: Mapping[str, Any], arguments: Iterable[str]) -> Cell:
    own = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in own:
            raise unknown(f"option of cell {name!r}", option, [*own, *arguments])
    try:
        return kind(**options)
    except TypeError as error:
        raise RecurlabError(f"cell={name!r}: {one_line(error)}") from error
