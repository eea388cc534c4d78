"""What a config chooses by a name: the tables, and the options of what a name stands for."""

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from recurlab.cells import CELLS, named
from recurlab.cells.build import make_cell
from recurlab.cells.cell import Cell
from recurlab.cells.options import arguments_of, schema_of
from recurlab.data import DATA
from recurlab.errors import RecurlabError, unknown_option
from recurlab.former import FORMER_OPTIONS, flat_cell
from recurlab.launch import LAUNCHERS
from recurlab.layers import CONSTRAINTS, INITIALIZERS, REGULARIZERS
from recurlab.problems import OPTIMIZERS, SCHEDULERS
from recurlab.schema import typed
from recurlab.table import Table
from recurlab.training import LOGGERS

# Where a config holds a choice by its `name`, and the table that it is looked up in. A null choice stays None.
CHOICES: dict[str, Table] = {
    "data": DATA,
    "cell": CELLS,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
    "logger": LOGGERS,
    "launcher": LAUNCHERS,
    "model.constraint.input": CONSTRAINTS,
    "model.constraint.recurrent": CONSTRAINTS,
    "model.constraint.bias": CONSTRAINTS,
    "model.regularizer.input": REGULARIZERS,
    "model.regularizer.recurrent": REGULARIZERS,
    "model.regularizer.bias": REGULARIZERS,
    "model.init.encoder": INITIALIZERS,
    "model.init.input": INITIALIZERS,
    "model.init.recurrent": INITIALIZERS,
    "model.init.last_recurrent": INITIALIZERS,
    "model.init.bias": INITIALIZERS,
    "model.init.head": INITIALIZERS,
}


def schema_at(key: str, name: str) -> type:
    """Return the dataclass whose fields are the options of a name that is chosen at `key`; its table has the name."""
    return schema_of(named(name).cls) if key == "cell" else CHOICES[key][name]


def typed_choice(config: DictConfig, key: str, elsewhere: Iterable[str] = ()) -> tuple[str, DictConfig]:
    """Return the name that is chosen at `key`, and the options given with the types of what the name stands for.

    Args:
        config: without interpolations.
        key: of `CHOICES`, which the config has.
        elsewhere: full keys of other parts of the config, for the hint when an option stands in the
            wrong one.

    Raises:
        RecurlabError: for an unknown name or option, or a value of a wrong type.
    """
    given, table = OmegaConf.select(config, key), CHOICES[key]
    options: dict[Any, Any] = {"name": given}
    if isinstance(given, DictConfig):
        options = cast(dict[Any, Any], OmegaConf.to_container(given))
    if key == "cell":
        options = flat_cell(options)
    name = options.pop("name", None)
    table.check(f"{key}.name", name)
    schema = schema_at(key, name)
    own = [option.name for option in fields(schema)]
    if key == "cell":  # null is the cell's own
        options = {k: value for k, value in options.items() if value is not None or k not in (*own, *FORMER_OPTIONS)}
    for option, value in options.items():
        if option not in own:
            raise unknown_option(f"{key}.{option}", value, f"{table.kind} {name!r}", own, elsewhere)
    return name, typed(f"{key}.", schema, OmegaConf.create(options))


def take_cell(config: DictConfig, elsewhere: Iterable[str] = ()) -> Cell:
    """Take the cell out of a config and return it; a recurrence that is left open becomes the cell's usual one."""
    if config.get("cell") is None:
        raise RecurlabError(f"cell=None: must be one of {', '.join(CELLS)}")
    name, values = typed_choice(config, "cell", elsewhere)
    del config["cell"]
    hints = {option.name: option.type for option in fields(schema_at("cell", name))}
    given = [str(key) for key in values if not OmegaConf.is_missing(values, key)]
    options = {key: _plain(values[key], hints[key]) for key in given}
    try:
        cell, usual = make_cell(name, options)
    except RecurlabError as error:
        said = re.match(r"\w+(?=[=:])", str(error))
        of_option = said and said[0] in arguments_of(named(name).cls)
        raise RecurlabError(f"cell.{error}" if of_option else str(error)) from error
    if OmegaConf.select(config, "recurrence.name") is None:
        OmegaConf.update(config, "recurrence.name", usual)
    return cell


def _plain(value: Any, hint: Any) -> Any:
    """Return an option's value as Python has it: a tuple where its type is one, for which a config has a list."""
    made = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    is_tuple = tuple in (get_origin(one) for one in (hint, *get_args(hint)))
    return tuple(made) if is_tuple and isinstance(made, list) else made
