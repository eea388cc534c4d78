"""The options of a cell: the arguments of its class, as a schema that values of a config are held against."""

import inspect
from dataclasses import field, make_dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, get_type_hints

BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """Return the arguments that a class takes by keyword, by their names."""
    found = inspect.signature(cls).parameters
    return {name: argument for name, argument in found.items() if argument.kind in BY_KEYWORD}


@cache
def schema_of(cls: type) -> type:
    """Return a dataclass with a field for each option of a class of cells, none of which has a default.

    A field has the type of the argument's annotation, or any where there is none or OmegaConf does
    not know it.
    """
    from omegaconf import MISSING  # here, as a layer is used where only torch and numpy are

    typed = {name: _type_of(cls, argument) for name, argument in arguments_of(cls).items()}
    return make_dataclass(cls.__name__, [(name, hint, field(default=MISSING)) for name, hint in typed.items()])


def missing(cls: type, given: dict[str, Any]) -> list[str]:
    """Return the options that have no default and are not given."""
    arguments = arguments_of(cls)
    return [name for name, argument in arguments.items() if argument.default is argument.empty and name not in given]


def _type_of(cls: type, argument: inspect.Parameter) -> Any:
    from omegaconf import MISSING, OmegaConf

    if argument.annotation is argument.empty:
        return Any
    written = SimpleNamespace(__annotations__={"option": argument.annotation})
    try:
        hint = get_type_hints(written, vars(inspect.getmodule(cls)))["option"]
        OmegaConf.structured(make_dataclass("Probe", [("option", hint, field(default=MISSING))]))
    except Exception:  # a type of the user's, or a name that only a type checker knows
        return Any
    return hint
