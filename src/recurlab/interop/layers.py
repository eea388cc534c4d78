"""Weights of other packages to `recurlab.RNN` and back."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from recurlab.cells import CELLS
from recurlab.cells.gru import GRU
from recurlab.errors import RecurlabError, check_choice, check_number, one_line
from recurlab.interop.formats import FORMATS, Format, suffixed
from recurlab.interop.groups import groups_of
from recurlab.interop.layout import (
    GATES,
    PARAMETERS,
    Array,
    Arrays,
    Layout,
    MisfitError,
    array_of,
    read_parameters,
    write_arrays,
)
from recurlab.layers.rnn import RNN

DTYPES = ("float16", "float32", "float64")


class Found(NamedTuple):
    """Arrays that fit a layout: our parameters of each layer and direction."""

    layout: Layout
    parameters: list[list[Arrays]]


def from_arrays(
    arrays: Mapping[str, Any],
    format: str,
    *,
    cell: str | None = None,
    reset: str | None = None,
    forget_bias: float = 1.0,
    **options: Any,
) -> RNN:
    """Return a layer that computes what the layer of another package computes that has these weights.

    Args:
        arrays: by their names, as the package calls them, with anything in front that tells layers
            and directions apart: ``"backward_layer/kernel"``,
            ``"rnn/multi_rnn_cell/cell_0/gru_cell/gates/bias"``, ``"weight_ih_l0"``. All of one
            floating-point type, which the layer's weights are then of; bfloat16 counts as float32.
        format: torch, keras, tensorflow, cudnn, haste or recurlab.
        cell: rnn, gru or lstm, where the names and shapes leave that open.
        reset: of a GRU, after or before, where they leave that open, as without biases.
        forget_bias: what a TensorFlow LSTM cell adds to the forget gate when it runs, which its
            weights do not tell.
        options: further arguments of `recurlab.RNN`, as ``activation="relu"`` or
            ``batch_first=True``.

    Raises:
        RecurlabError: for arrays that are missing, too many, of a wrong shape or dtype or not
            finite, and for such as fit several layers.
    """
    check_choice("format", format, FORMATS)
    if cell is not None:
        check_choice("cell", cell, GATES)
    check_number("forget_bias", forget_bias)
    given = {str(name): _as_array(str(name), array) for name, array in arrays.items()}
    _check_dtypes(given)
    wanted = {"cell": cell, "reset": reset}
    found = _choose(given, format, {key: value for key, value in wanted.items() if value is not None}, forget_bias)
    return _layer(found, options)


def to_arrays(layer: RNN, format: str, *, forget_bias: float = 1.0) -> Arrays:
    """Return the weights of a layer as another package has them, to be given to a layer of its own.

    Where the package has one bias for our two it is their sum, with a rounding only if both are
    other than zero. Weights of bfloat16, a type that NumPy has not, are returned as float32.

    Args:
        layer: whose weights.
        format: torch, keras, tensorflow, cudnn, haste or recurlab.
        forget_bias: what a TensorFlow LSTM cell is to add to the forget gate when it runs.

    Raises:
        RecurlabError: if the package has no such layer.
    """
    check_choice("format", format, FORMATS)
    check_number("forget_bias", forget_bias)
    layout = _with_forget_bias(_layout_of(layer, format), forget_bias)
    state = {name: _as_array(name, parameter) for name, parameter in layer.weights().items()}
    made = Arrays()
    for number in range(layer.num_layers):
        for direction in range(layer.num_directions):
            names = {name: suffixed(name, number, direction) for name in PARAMETERS}
            own = {name: state[key] for name, key in names.items() if key in state}
            for name, array in write_arrays(layout, own).items():
                key = FORMATS[format].key(name, number, layer.num_layers, direction, layer.num_directions)
                made[key] = array
    return made


def _as_array(name: str, array: Any) -> Array:
    try:
        found = array_of(array) if isinstance(array, torch.Tensor) else np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of tensors without numbers, as on meta
        raise RecurlabError(f"{name}: is no array: {one_line(error)}") from error
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _check_dtypes(arrays: Mapping[str, Array]) -> None:
    if not arrays:
        raise RecurlabError("there are no arrays")
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise RecurlabError(f"{name}: must be of {', '.join(DTYPES)}, not {array.dtype}")
    (first, one), *others = arrays.items()
    for name, array in others:
        if array.dtype != one.dtype:
            raise RecurlabError(f"{name}: is of {array.dtype}, but {first} of {one.dtype}: all need the same dtype")


def _choose(arrays: Arrays, format: str, wanted: dict[str, str], forget_bias: float) -> Found:
    """Return what the arrays are; those of several layers, and of none, are an error."""
    fitting: list[Found] = []
    misfits: list[MisfitError] = []
    for layout in _candidates(format, wanted):
        layout = _with_forget_bias(layout, forget_bias)
        try:
            fitting.append(Found(layout, _read(arrays, FORMATS[format], layout)))
        except MisfitError as error:
            misfits.append(error)
    told = [found for found in fitting if any(f"{found.layout.cell}_cell" in name.lower() for name in arrays)]
    match told or fitting:
        case [found]:
            return found
        case []:
            raise min(misfits, key=lambda misfit: misfit.count)
        case several:
            kinds = " or ".join(str(found.layout) for found in several)
            raise RecurlabError(f"these arrays of format={format!r} are those of {kinds}: say cell= or reset=")


def _candidates(format: str, wanted: dict[str, str]) -> list[Layout]:
    """Return the layouts of a format that are as wanted."""
    found = [
        layout
        for layout in FORMATS[format].layouts
        if all({"cell": layout.cell, **layout.options}.get(key) == value for key, value in wanted.items())
    ]
    if not found:
        said = ", ".join(f"{key}={value!r}" for key, value in wanted.items())
        raise RecurlabError(f"{said}: format={format!r} has no such layer; it has {_listed(format)}")
    return found


def _listed(format: str) -> str:
    return ", ".join(str(layout) for layout in FORMATS[format].layouts)


def _with_forget_bias(layout: Layout, forget_bias: float) -> Layout:
    return replace(layout, added={"forget": forget_bias}) if layout.added else layout


def _read(arrays: Arrays, kind: Format, layout: Layout) -> list[list[Arrays]]:
    """Return our parameters of each layer and direction."""
    groups = groups_of(arrays, kind, layout)
    names = {name for layer in groups for group in layer for name in group.arrays}
    bias = any(entry.is_bias and entry.name in names for entry in layout.entries)
    made: list[list[Arrays]] = [[] for _ in groups]
    misfits: list[MisfitError] = []
    for layer, parameters in zip(groups, made, strict=True):
        for group in layer:
            try:
                parameters.append(read_parameters(layout, group.arrays, group.key, bias=bias))
            except MisfitError as error:  # all count: the layout with the fewest is what was meant
                misfits.append(error)
    if misfits:
        raise MisfitError(str(misfits[0]), sum(misfit.count for misfit in misfits))
    return made


def _layer(found: Found, options: dict[str, Any]) -> RNN:
    parameters, layout = found.parameters, found.layout
    first = parameters[0][0]
    told = {
        "input_size": first["weight_ih"].shape[1],
        "hidden_size": first["weight_hh"].shape[0] // len(GATES[layout.cell]),
        "num_layers": len(parameters),
        "bias": "bias_ih" in first,
        "bidirectional": len(parameters[0]) > 1,
        "recurrence": "diagonal" if layout.diagonal else "dense",
        "layer_norm": layout.normalized,
        "dtype": torch.from_numpy(first["weight_ih"]).dtype,
    }
    for key, value in told.items():
        if options.get(key, value) != value:
            raise RecurlabError(f"{key}={options[key]!r}: these arrays are of a layer with {key}={value!r}")
    layer = RNN(cell=layout.cell, **{**layout.options, **options, **told})
    ours, theirs = layer.state_dict(), dict(_named(parameters))
    for name, weight in ours.items():
        if tuple(weight.shape) != theirs[name].shape:
            wanted, count = tuple(weight.shape), len(parameters)
            raise RecurlabError(f"{name}={theirs[name].shape}: must be {wanted} in a stack of {count} layers")
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in theirs.items()})
    return layer


def _named(parameters: list[list[Arrays]]) -> Iterator[tuple[str, Array]]:
    for number, directions in enumerate(parameters):
        for direction, own in enumerate(directions):
            for name, array in own.items():
                yield suffixed(name, number, direction), array


def _layout_of(layer: RNN, format: str) -> Layout:
    """Return the layout of a layer in a package that has it."""
    name = next((name for name in GATES if type(layer.cell) is CELLS[name]), None)
    if name is None:
        raise RecurlabError(f"cell={layer.cell}: other packages have only {', '.join(GATES)}")
    reset = {"reset": layer.cell.reset} if isinstance(layer.cell, GRU) else {}
    kind = layer.recurrence.kind
    for layout in FORMATS[format].layouts:
        recurrence = "diagonal" if layout.diagonal else "dense"
        found = (layout.cell, recurrence, dict(layout.options), layout.normalized)
        if found == (name, kind, reset, layer.layer_norm):
            return layout
    norm = layer.layer_norm
    normalized = f"layer_norm={norm} " if isinstance(norm, str) else "layer-normalised " * norm
    said = f"{normalized}{f'{kind} ' * (kind != 'dense')}{name}"
    said = " ".join([said, *(f"reset={value}" for value in reset.values())])
    raise RecurlabError(f"format={format!r} has no {said}; it has {_listed(format)}")
