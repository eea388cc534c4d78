"""Every built-in cell in its forms: with each choice of its options. A new cell is tested by being registered."""

import re
from dataclasses import fields

import recurlab
from recurlab.cells import CELLS, PRESETS

FEW = 4  # values of an option that are all tried


def forms(*, activations: bool = True) -> dict[str, dict]:
    """Return the arguments of the layer by names like gru_before, whose cell is the first word.

    Args:
        activations: whether a cell without another choice is there with its activation as ReLU too.
    """
    own = [name for name in CELLS if name not in PRESETS and CELLS[name].__module__.startswith("recurlab.")]
    return {title: form for name in own for title, form in _forms_of(name, activations)}


def _forms_of(name, activations):
    cell = recurlab.RNN(1, 1, cell=name).cell
    allowed = {field.name: _allowed(name, field.name, getattr(cell, field.name)) for field in fields(cell)}
    few = {option: values for option, values in allowed.items() if 1 < len(values) <= FEW}
    usual = {option: getattr(cell, option) for option in few}
    found = [usual, *({**usual, key: value} for key in few for value in few[key] if value != usual[key])]
    if activations and not few and "relu" in allowed.get("activation", ()):
        found.append({"activation": "relu"})
    for options in found:
        yield "_".join([name, *map(str, options.values())]), {"cell": name, **options}


def _allowed(name, option, usual):
    """Return the values that an option may have, as the error for any other one lists them."""
    if isinstance(usual, bool):
        return [False, True]
    try:
        recurlab.RNN(1, 1, cell=name, **{option: "no such value"})
    except recurlab.RecurlabError as error:
        listed = re.search(r"allowed are ([\w, ]+)", str(error))
        return listed[1].split(", ") if listed else []
    return []
