"""Columns of a user's own table as flat arrays; an error names the split and the row."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.data.decimals import column_commas, numbers_in
from recurlab.data.progress import track
from recurlab.data.vocabulary import EOS
from recurlab.errors import RecurlabError, one_line, unknown

BATCH = 1000  # rows converted at a time


class Column(NamedTuple):
    """One column of consecutive rows.

    Attributes:
        key: of the config that names the column, as "label".
        name: of the column.
        split: "train", "valid" or "test".
        start: number of the first row in its split.
        array: the values, a pyarrow Array.
        seen: by a column's name, what earlier rows have settled: the meaning of its commas, or the
            type of its labels.
    """

    key: str
    name: str
    split: str
    start: int
    array: Any
    seen: dict[str, Any]

    def error(self, row: int, what: str) -> RecurlabError:
        """Return the error for a row, an index into `array`."""
        return RecurlabError(f"data.{self.key}={self.name!r}: {self.split} row {self.start + int(row)} {what}")


def columns(table: Any, split: str, wanted: Sequence[tuple[str, str]], level: str | None) -> Iterator[list[Column]]:
    """Iterate over the wanted columns of some rows at a time, with a progress bar where that takes long.

    Args:
        table: a `datasets.Dataset`, or a pyarrow Table.
        split: what it is called in messages.
        wanted: pairs of a key of the config and the column that it names.
        level: of texts, None for numbers.

    Raises:
        RecurlabError: for a column that is not there, a table without rows, or a row without a
            value.
    """
    import pyarrow as pa

    for key, name in wanted:
        if name not in table.column_names:
            ending = (
                "; for texts without labels there is data=text"
                if key == "label" and (level or table.column_names == ["text"])
                else ""
            )
            raise RecurlabError(f"{unknown(f'data.{key}', name, table.column_names)} (the columns of {split}){ending}")
    if not len(table):
        raise RecurlabError(f"data.{split}: there is no row")
    names = [name for _, name in wanted]
    plain = isinstance(table, pa.Table)
    chosen = table.select(names) if plain else table.select_columns(names).with_format("arrow")
    seen: dict[str, Any] = {}
    for start in track(range(0, len(table), BATCH), f"reading {split}"):
        batch = chosen[start : start + BATCH]
        found = [Column(key, name, split, start, _plain(batch.column(name)), seen) for key, name in wanted]
        for column in found:
            if column.array.null_count:
                raise column.error(np.flatnonzero(column.array.is_null())[0], "has no value")
        yield found


def _plain(chunks: Any) -> Any:
    """Return a column of a batch, whatever its class, as a pyarrow Array of lists, numbers or strings."""
    import pyarrow as pa

    array = chunks.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    return array.storage if isinstance(array, pa.ExtensionArray) and _is_list(array.storage.type) else array


def sequences(parts: Sequence[Column], steps: Column | None, width: int | None) -> tuple[Any, NDArray[np.int64]]:
    """Return sequences of numbers (S, C) float32, one after another, and their lengths (N,).

    Args:
        parts: one column of numbers or of lists, or a column of numbers for each channel.
        steps: how many steps of each sequence count.
        width: C, where earlier rows have settled it.
    """
    found = [_numbers(column) for column in parts]
    lengths = found[0][1]
    for column, (values, other) in zip(parts, found, strict=True):
        for row in np.flatnonzero(other != lengths)[:1]:
            raise column.error(row, f"has length {other[row]}, but {parts[0].name!r} has {lengths[row]}")
        for row in np.flatnonzero(other == 0)[:1]:
            raise column.error(row, "is empty, a sequence of length 0")
        if len(parts) > 1 and values.shape[1] > 1:
            raise column.error(0, f"has {values.shape[1]} channels; of several columns each must hold one")
    inputs = np.concatenate([values for values, _ in found], axis=1)
    if width not in (None, inputs.shape[1]):
        raise parts[0].error(0, f"has {inputs.shape[1]} channels, the rows before have {width}")
    if steps is not None:
        known, lengths = lengths, _steps(steps, lengths)
        step = np.arange(len(inputs)) - np.repeat(np.cumsum(known) - known, known)
        inputs = inputs[step < np.repeat(lengths, known)]
    return _float32(parts, inputs, lengths), lengths


def vectors(column: Column, width: int | None) -> NDArray[np.float32]:
    """Return the numbers to be predicted for each row, (N, O) float32; `width` is O, where that is known."""
    values, lengths = _numbers(column)
    if values.shape[1] > 1:
        raise column.error(0, "holds lists of lists; must hold a number or a list of numbers")
    for row in np.flatnonzero(lengths == 0)[:1]:
        raise column.error(row, "has no value")
    width = int(lengths[0]) if width is None else width
    for row in np.flatnonzero(lengths != width)[:1]:
        raise column.error(row, f"holds {lengths[row]} numbers, the rows before {width}")
    return _float32([column], values, lengths).reshape(-1, width)


def symbols(
    column: Column, steps: Column | None, level: str, codes: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes (S,) of the characters or words of texts, or of lists of words, and the lengths (N,).

    A line end within a text is one more word, `EOS`.

    Args:
        column: the texts.
        steps: how many symbols of each text count.
        level: "char" or "word".
        codes: by symbol; new symbols are added.
    """
    held, words = column.array.type, _is_list(column.array.type) and level == "word"
    if not (is_text(held) or (words and is_text(held.value_type))):
        raise column.error(
            0, f"holds {held}; data.level={level!r} needs texts{' or lists of words' * (level == 'word')}"
        )
    texts: list[Sequence[str]] = column.array.to_pylist()
    if level == "word" and not words:
        texts = [text.replace("\n", f" {EOS} ").split() if text.strip() else [] for text in column.array.to_pylist()]
    lengths = np.array([len(text) for text in texts], np.int64)
    for row in np.flatnonzero(lengths == 0)[:1]:
        raise column.error(row, "is empty, a sequence of length 0")
    if steps is not None:
        lengths = _steps(steps, lengths)
        texts = [text[:length] for text, length in zip(texts, lengths, strict=True)]
    for row in (row for row, text in enumerate(texts) if None in text) if words else ():
        raise column.error(row, "holds a word without a value")
    flat = (codes.setdefault(symbol, len(codes)) for text in texts for symbol in text)
    return np.fromiter(flat, np.int64, int(lengths.sum())), lengths


def row_of(step: int, lengths: NDArray[np.int64]) -> int:
    """Return the sequence that a step belongs to."""
    return int(np.searchsorted(np.cumsum(lengths), step, side="right"))


def _steps(column: Column, most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many steps count, each from 1 to `most`."""
    values, counts = _numbers(column)
    for row in np.flatnonzero(counts != 1)[:1]:
        raise column.error(row, "is not a whole number")
    steps = values[:, 0]
    for row in np.flatnonzero(~((steps >= 1) & (steps <= most) & (steps == np.floor(steps))))[:1]:
        raise column.error(
            row, f"has {steps[row]:g}: must be a whole number from 1 to {most[row]}, the steps there are"
        )
    return steps.astype(np.int64)


def _float32(parts: Sequence[Column], values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    for step, channel in np.argwhere(~np.isfinite(single))[:1]:
        column = parts[channel if len(parts) > 1 else 0]
        raise column.error(row_of(step, lengths), f"holds {values[step, channel]:g}, which is not a finite float32")
    return single


def _numbers(column: Column) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the numbers (S, C) of each row and how many steps it has; what is null in a list is NaN."""
    import pyarrow.compute as pc

    array = column.array
    if is_text(array.type):
        found = _in_strings(column)
        lengths = np.array([len(values) for values in found], np.int64)
        return _parsed(column, [value for values in found for value in values], lengths)[:, None], lengths
    if not _is_list(array.type):
        lengths = np.ones(len(array), np.int64)
        return _leaves(column, array, lengths)[:, None], lengths
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
    inner = array.flatten()
    if not _is_list(inner.type):
        return _leaves(column, inner, lengths)[:, None], lengths
    widths = pc.fill_null(pc.list_value_length(inner), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    width = int(widths[0]) if len(widths) else 1
    for step in np.flatnonzero((widths != width) | (widths == 0))[:1]:
        raise column.error(row_of(step, lengths), f"has a step of {widths[step]} channels, others have {width}")
    return _leaves(column, inner.flatten(), lengths * width).reshape(-1, width), lengths


def _in_strings(column: Column) -> list[list[str]]:
    """Return the numbers in each row of a column of strings, as strings."""
    texts: list[str] = column.array.to_pylist()
    commas, wrong = column_commas(texts, column.seen.get(column.name), several=column.key == "sequence")
    if wrong is not None:
        said = one_line(f"holds {texts[wrong]!r:.60}")
        raise column.error(wrong, f"{said}: decimal commas, or commas between numbers? write 3.14, or [3, 14]")
    if commas is not None:
        column.seen[column.name] = commas
    return [numbers_in(text, commas) for text in texts]


def _leaves(column: Column, array: Any, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return an array of single values as numbers; `counts` of them belong to each row."""
    import pyarrow as pa

    types = pa.types
    if any(check(array.type) for check in (types.is_integer, types.is_floating, types.is_boolean, types.is_null)):
        numbers: NDArray[np.float64] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    return _parsed(column, array.to_pylist(), counts)


def _parsed(column: Column, values: Sequence[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    try:
        return np.array(values, np.float64).reshape(len(values))
    except (ValueError, TypeError):
        wrong = next(i for i, value in enumerate(values) if not _is_number(value))
    said = one_line(f"holds {values[wrong]!r:.60}, which is not a number")
    hint = "; for a text set data.level=char or word" if column.key == "sequence" and is_text(column.array.type) else ""
    raise column.error(row_of(wrong, counts), said + hint)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def is_text(type: Any) -> bool:
    """Return whether a type of pyarrow is one of strings."""
    import pyarrow.types as types

    return bool(types.is_string(type) or types.is_large_string(type))


def _is_list(type: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type))
