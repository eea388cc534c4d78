"""How earlier versions wrote the cell of a config: two options beside the name, null for the cell's own, and a bag."""

from collections.abc import Mapping
from typing import Any

from recurlab.errors import RecurlabError, shown

FORMER_OPTIONS = ("activation", "reset")
BAG = "options"
WITH_RESET = ("gru", "cudnn_gru", "indy_gru")  # cells that were written with a reset, given or not


def flat_cell(cell: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a cell as it is written now, whose options stand beside its name.

    Raises:
        RecurlabError: for options that are no mapping.
    """
    rest = {str(key): value for key, value in cell.items()}
    bag = rest.pop(BAG, None)
    if bag is not None and not isinstance(bag, Mapping):
        raise RecurlabError(f"cell.{BAG}={shown(bag)}: must be a mapping")
    return {**rest, **{str(key): value for key, value in (bag or {}).items()}}


def former_cell(cell: Any) -> Any:
    """Return a cell as earlier versions wrote it, by which their runs are found; what is no cell stays as it is."""
    if not isinstance(cell, Mapping) or BAG in cell:
        return cell
    rest = dict(cell)
    found = {"name": rest.pop("name", None), "activation": rest.pop("activation", None)}
    if "reset" in rest or found["name"] in WITH_RESET:
        found["reset"] = rest.pop("reset", None)
    return {**found, BAG: rest}
