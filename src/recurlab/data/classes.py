"""Which classes the labels of a table stand for."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurlab.data.columns import Column, is_text
from recurlab.errors import one_line

WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
# What stands for no value in columns of numbers.
MISSING = ("nan", "NaN", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "?", "-")


def labels(column: Column, names: Sequence[str] | None, codes: dict[str | int, int]) -> NDArray[np.int64]:
    """Return the codes (N,) of labels; `names` are those of a ClassLabel, and new labels are entered in `codes`."""
    values = _values(column)
    for row in (row for row, value in enumerate(values) if value == ""):
        raise column.error(row, "has no value")
    if names is not None:
        for row in (row for row, value in enumerate(values) if not 0 <= value < len(names)):
            raise column.error(row, f"has the label {values[row]}: must be a whole number from 0 to {len(names) - 1}")
        values = [names[value] for value in values]
    return np.array([codes.setdefault(value, len(codes)) for value in values], np.int64)


def _values(column: Column) -> list[Any]:
    """Return labels as strings or whole numbers; anything else is an error."""
    import pyarrow.types as types

    array, wanted = column.array, "a label must be a whole number or a string"
    if types.is_floating(array.type):
        numbers = array.to_numpy(zero_copy_only=False).astype(np.float64)
        for row in np.flatnonzero(~((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53)))[:1]:
            said = f"holds {numbers[row]:g}; {wanted}; data.problem=regression predicts numbers"
            raise column.error(row, said)
        return [int(number) for number in numbers]
    if getattr(array.type, "extension_name", None) == "arrow.json":  # the labels of a file are of several types
        values = [json.loads(text) for text in array.storage.to_pylist()]
        first = column.seen.setdefault(column.name, values[0])
        for row in (row for row, value in enumerate(values) if type(value) is not type(first)):
            said = f"holds {values[row]!r:.60}, of another type than {first!r:.60} in rows before; {wanted}"
            raise column.error(row, one_line(said))
        return values
    if not (is_text(array.type) or types.is_integer(array.type) or types.is_boolean(array.type)):
        raise column.error(0, f"holds {array.type}; {wanted}")
    return [int(value) for value in array.to_pylist()] if types.is_boolean(array.type) else array.to_pylist()


def classes_of(
    codes: dict[str | int, int], used: NDArray[Any], names: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return what the classes are called, and for the code of each label its class, or -1.

    The classes are the labels of the training rows: whole numbers by size, also with gaps, strings
    alphabetically.

    Args:
        codes: of the labels in all splits.
        used: those in the rows of training.
        names: those of a ClassLabel.
    """
    known = _known(codes, used)
    spelt = [str(label) for label in codes]
    if names is None and all(map(WHOLE.fullmatch, known)):
        names = [str(number) for number in sorted({int(label) for label in known})]
        spelt = [str(int(label)) if WHOLE.fullmatch(label) else label for label in spelt]
    classes = tuple(sorted(known) if names is None else names)
    index = {name: n for n, name in enumerate(classes)}
    return classes, np.array([index.get(label, -1) for label in spelt], np.int64)


def no_class(codes: dict[str | int, int], used: NDArray[Any]) -> tuple[int, str] | None:
    """Return the first training row whose label can't be a class, and why; None where all can."""
    known = _known(codes, used)
    whole = [label for label in known if WHOLE.fullmatch(label)]
    spelt: dict[object, list[str]] = defaultdict(list)
    for label in known:
        same = spelt[label.strip() if (number := _number(label)) is None else number]
        same.append(label)
        if len(same) > 1 and len(whole) < len(known):
            return _row(codes, used, label), f"has the label {label!r}, and others {same[0]!r}: are they one?"
        if label.strip() in MISSING and whole and len(whole) == len(known) - 1:
            return _row(codes, used, label), f"has no value: {label!r} among whole numbers"
    if are_numbers(known) and len(known) > max(2, len(used) / 2):
        return 0, f"has one of {len(known):,} numbers in {len(used):,} rows; data.problem=regression predicts numbers"
    return None


def are_numbers(labels: Sequence[str]) -> bool:
    """Return whether labels look like measured numbers: not whole, or with gaps between them."""
    numbers = [number for label in labels if (number := _number(label)) is not None]
    if len(numbers) < len(labels) or not numbers:
        return False
    return any(n != int(n) for n in numbers) or max(numbers) - min(numbers) + 1 > len(set(numbers))


def _known(codes: Iterable[str | int], used: NDArray[Any]) -> list[str]:
    present = set(np.unique(used).tolist())
    return [str(label) for code, label in enumerate(codes) if code in present]


def _row(codes: dict[str | int, int], used: NDArray[Any], label: str) -> int:
    code = [str(each) for each in codes].index(label)
    return int(np.flatnonzero(used == code)[0])


def _number(label: str) -> float | None:
    try:
        number = float(label)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
