"""How a package lays out the weights of a layer: a table of its arrays, and what reads and writes by such a table."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurlab.errors import RecurlabError, did_you_mean

Array = NDArray[Any]
Arrays = dict[str, Array]
Blocks = dict[tuple[str, str], Array]  # by parameter and gate: (rows, H), its rows being what feeds the gate
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "gain_ih", "gain_hh", "gain_state", "bias_state")
BIAS = "bias"  # the sum of both, where a package has one
GATES = {
    "rnn": ("hidden",),
    "gru": ("reset", "update", "candidate"),
    "lstm": ("input", "forget", "cell", "output"),
}
STATE = ("state",)  # what gain_state and bias_state have instead of gates


def array_of(tensor: Any) -> Array:
    """Return the numbers of a tensor of torch; those of bfloat16, a type that NumPy has not, are float32."""
    kept = tensor.detach().cpu()
    array: Array = (kept.float() if str(kept.dtype) == "torch.bfloat16" else kept).numpy()
    return array


def gates_of(cell: str, parameter: str) -> tuple[str, ...]:
    """Return what a parameter has a block of for."""
    return STATE if parameter.endswith(STATE) else GATES[cell]


class MisfitError(RecurlabError):
    """Arrays are not those of a layout.

    Args:
        reason: the first that is wrong.
        count: how many are.
    """

    def __init__(self, reason: str, count: int = 1) -> None:
        super().__init__(reason)
        self.count = count


@dataclass(frozen=True)
class Entry:
    """One array of a layer: parameters one above the other, each with its gates side by side.

    Attributes:
        name: of the array.
        parameters: of ours, from the top; or `BIAS`.
        gates: from the left.
        transposed: units are rows, as torch has them.
        flat: the array is a vector; its single row has no axis.
    """

    name: str
    parameters: tuple[str, ...]
    gates: tuple[str, ...]
    transposed: bool = False
    flat: bool = False

    @property
    def is_bias(self) -> bool:
        """Whether a layer without biases has no such array."""
        return self.parameters[0].startswith(BIAS)


@dataclass(frozen=True)
class Layout:
    """All arrays of one kind of layer, for one direction.

    Attributes:
        cell: rnn, gru or lstm.
        entries: the arrays.
        diagonal: whether the recurrence is; else it is dense.
        options: of the cell.
        added: what the package adds to the bias of a gate when it runs, by gate.
        always_biased: whether there are no such layers without biases.
    """

    cell: str
    entries: tuple[Entry, ...]
    diagonal: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, float] = field(default_factory=dict)
    always_biased: bool = False

    def __str__(self) -> str:
        kind = f"{'layer-normalised ' * self.normalized}{'diagonal ' * self.diagonal}{self.cell}"
        return " ".join([kind, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def normalized(self) -> bool:
        """Whether it is of layers with layer normalisation."""
        return any("gain_ih" in entry.parameters for entry in self.entries)

    def present(self, bias: bool) -> list[Entry]:
        """Return the arrays of a layer with or without biases."""
        return [entry for entry in self.entries if bias or self.always_biased or not entry.is_bias]

    def rows(self, parameter: str, features: int, units: int) -> int:
        """Return how many numbers feed each gate of a unit."""
        return {"weight_ih": features, "weight_hh": 1 if self.diagonal else units}.get(parameter, 1)

    def shape(self, entry: Entry, features: int, units: int) -> tuple[int, ...]:
        """Return the shape of an array."""
        rows = sum(self.rows(parameter, features, units) for parameter in entry.parameters)
        columns = len(entry.gates) * units
        return (columns,) if entry.flat else (columns, rows) if entry.transposed else (rows, columns)


def read_parameters(layout: Layout, arrays: Mapping[str, Array], key: Callable[[str], str], *, bias: bool) -> Arrays:
    """Return our parameters of one direction: weight_ih (G*H, I), weight_hh (G*H, H) or (G*H,), the others flat.

    Args:
        layout: of the arrays.
        arrays: by the names of the layout.
        key: what the caller calls an array, in an error.
        bias: whether the layer, of which this is a direction, has biases.

    Raises:
        MisfitError: for arrays that are missing, too many, of a wrong shape, or hold what is no
            number.
    """
    bias = bias or layout.always_biased
    entries = layout.present(bias)
    _check_names([entry.name for entry in entries], arrays, key)
    features, units = _sizes(entries, layout, arrays)
    shapes = {key(entry.name): layout.shape(entry, features, units) for entry in entries}
    _check_arrays({key(entry.name): arrays[entry.name] for entry in entries}, shapes)
    blocks: Blocks = {}
    for entry in entries:
        blocks.update(_split(layout, entry, arrays[entry.name], features, units))
    if bias:
        _complete_bias(layout, blocks)
    found = {name for name, _ in blocks}
    return {name: _joined(layout, blocks, name) for name in PARAMETERS if name in found}


def write_arrays(layout: Layout, parameters: Mapping[str, Array]) -> Arrays:
    """Return the arrays of a layout for our parameters of one direction."""
    blocks: Blocks = {}
    for name, parameter in parameters.items():
        gates = gates_of(layout.cell, name)
        for gate, block in zip(gates, np.split(parameter, len(gates)), strict=True):
            blocks[name, gate] = block.T if block.ndim == 2 else block[None]
    bias = "bias_ih" in parameters
    for gate in GATES[layout.cell] if bias or layout.always_biased else ():
        zero = np.zeros_like(blocks["weight_hh", gate][:1])
        ours, theirs = blocks.setdefault(("bias_ih", gate), zero), blocks.setdefault(("bias_hh", gate), zero)
        blocks.setdefault(("bias_state", *STATE), zero)
        added = layout.added.get(gate, 0.0)
        # Exact where nothing is to be added up, so that what was read is written again.
        blocks[BIAS, gate] = np.where(theirs == added, ours, ours + (theirs - ours.dtype.type(added)))
    return {entry.name: _assembled(entry, blocks) for entry in layout.present(bias)}


def _check_names(wanted: list[str], arrays: Mapping[str, Array], key: Callable[[str], str]) -> None:
    missing = [name for name in wanted if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if missing:
        hint = f"; there are {', '.join(sorted(extra))}" if extra else ""
        raise MisfitError(f"{key(missing[0])}: is missing{hint}", len(missing) + len(extra))
    if extra:
        near = did_you_mean(extra[0], wanted)
        raise MisfitError(
            f"{key(extra[0])}: is no array of this layer, which has {', '.join(wanted)}{near}", len(extra)
        )


def _sizes(entries: list[Entry], layout: Layout, arrays: Mapping[str, Array]) -> tuple[int, int]:
    """Return features and units as most arrays have them, so that the one that has not is found."""
    shapes = {entry: arrays[entry.name].shape for entry in entries}
    # Turned to (rows, columns); what has not as many axes as it must tells nothing.
    turned = {
        entry: (1, *shape) if entry.flat else shape[::-1] if entry.transposed else shape
        for entry, shape in shapes.items()
        if len(shape) == (1 if entry.flat else 2)
    }
    units = Counter(
        columns // len(entry.gates) for entry, (_, columns) in turned.items() if columns % len(entry.gates) == 0
    )
    likeliest = max(units, key=lambda size: (units[size], size), default=1) or 1
    features = Counter[int]()
    for entry, (rows, columns) in turned.items():
        if "weight_ih" in entry.parameters:
            wrong_way = rows == len(entry.gates) * likeliest != columns
            others = sum(layout.rows(parameter, 0, likeliest) for parameter in entry.parameters)
            features[(columns if wrong_way else rows) - others] += 1
    return max(1, max(features, key=lambda size: features[size], default=1)), likeliest


def _check_arrays(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [name for name, array in arrays.items() if array.shape != shapes[name]]
    for name in wrong:
        shape, found = shapes[name], arrays[name].shape
        turned = ", as its transpose is" if found[::-1] == shape else ""
        raise MisfitError(f"{name}: must be of shape {shape}{turned}, not {found}", len(wrong))
    for name, array in arrays.items():
        if bad := int((~np.isfinite(array)).sum()):
            raise MisfitError(f"{name}: {bad} of its {array.size} numbers are not finite", 0)


def _split(layout: Layout, entry: Entry, array: Array, features: int, units: int) -> Blocks:
    matrix = array[None] if entry.flat else array.T if entry.transposed else array
    ends = np.cumsum([layout.rows(parameter, features, units) for parameter in entry.parameters])[:-1]
    return {
        (parameter, gate): block
        for parameter, part in zip(entry.parameters, np.split(matrix, ends), strict=True)
        for gate, block in zip(entry.gates, np.split(part, len(entry.gates), axis=1), strict=True)
    }


def _complete_bias(layout: Layout, blocks: Blocks) -> None:
    """Take a bias that is the sum of ours for the first of them; the second is what the package adds."""
    for gate in GATES[layout.cell]:
        if (BIAS, gate) in blocks:
            blocks["bias_ih", gate] = whole = blocks.pop((BIAS, gate))
            blocks["bias_hh", gate] = np.full_like(whole, layout.added.get(gate, 0.0))


def _joined(layout: Layout, blocks: Blocks, parameter: str) -> Array:
    rows = np.concatenate([blocks[parameter, gate].T for gate in gates_of(layout.cell, parameter)])
    vector = not parameter.startswith("weight") or (parameter == "weight_hh" and layout.diagonal)
    return np.ascontiguousarray(rows[:, 0] if vector else rows)


def _assembled(entry: Entry, blocks: Blocks) -> Array:
    parts = [np.concatenate([blocks[name, gate] for gate in entry.gates], axis=1) for name in entry.parameters]
    matrix = np.concatenate(parts)
    return np.ascontiguousarray(matrix[0] if entry.flat else matrix.T if entry.transposed else matrix)
