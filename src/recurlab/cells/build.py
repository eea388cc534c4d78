"""From a cell's name, options and recurrence to the cell and its recurrence; users' cells register here too."""

from collections.abc import Iterable, Mapping
from typing import Any

from recurlab.cells import CELLS, named
from recurlab.cells.cell import Cell
from recurlab.cells.options import arguments_of, missing
from recurlab.cells.recurrence import Recurrence
from recurlab.errors import RecurlabError, one_line, unknown, unknown_option

register_cell = CELLS.register  # a decorator that makes a `Cell` known by a name, in Python and on the command line


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
    from recurlab.cells.watch import check_holds_no_weights  # which imports torch

    if isinstance(cell, Cell):
        for option in options:
            raise unknown("argument", option, arguments)
        made, usual = cell, "dense"
    else:
        made, usual = make_cell(cell, options, arguments)
    check_holds_no_weights(made)
    made.prepare()
    return made, Recurrence(recurrence or usual, heads)


def make_cell(name: str, options: Mapping[str, Any], arguments: Iterable[str] = ()) -> tuple[Cell, str]:
    """Return the cell of a name and its usual recurrence, without importing torch; see `build_cell`."""
    cls, recurrence, usual = named(name)
    own, given = list(arguments_of(cls)), {**usual, **options}
    for option, value in options.items():
        if option not in own:
            raise unknown_option(option, value, f"cell {name!r}", own, arguments)
    for option in missing(cls, given):
        raise RecurlabError(f"{option}: cell {name!r} needs a value")
    try:
        made: Cell = cls(**given)
    except RecurlabError:
        raise
    except Exception as error:  # whatever a user's cell refuses is said in a line
        raise RecurlabError(f"cell={name!r}: {one_line(error)}") from error
    return made, recurrence
