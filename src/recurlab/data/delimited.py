"""CSV and TSV files as tables of strings. Nothing doubtful is guessed; an error names the line."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from recurlab.errors import RecurlabError, one_line

LONGEST = 2**31 - 1  # characters in a field
ROWS = 1000  # rows that become arrays at a time
SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}  # separators; the first one in the header is taken
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
# Numbers as spreadsheets write them where the comma is the decimal mark and fields are separated by semicolons: 1.234,5
NUMBER = r"[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]*)(?:,[0-9]+)?(?:[eE][+-]?[0-9]+)?"
NUMBERS = rf"^\s*(?:{NUMBER}(?:\s+{NUMBER})*)?\s*$"


def read_delimited(key: str, files: Sequence[Path], note: Callable[[str], object]) -> Any:
    """Return a pyarrow Table of strings, the rows of one file after another; empty lines are left out.

    A quoted field may hold separators and line ends. That can't be meant where a quote is never
    closed or, in a TSV, where a field would swallow whole rows. If each line is then a row by
    itself, only a field that is quoted as a whole counts as quoted, and other quotes are characters
    like any other.

    Args:
        key: of the config, for messages.
        files: with the same columns.
        note: called with a line on how quotes were read, where that is in doubt.

    Raises:
        RecurlabError: naming the line.
    """
    import pyarrow as pa

    tables: list[Any] = []
    for file in files:
        what = f"data.{key}={str(file)!r}"
        usual = csv.field_size_limit(LONGEST)
        try:
            tables.append(_read(file, what, note))
        finally:
            csv.field_size_limit(usual)
        if tables[-1].column_names != tables[0].column_names:
            raise RecurlabError(f"{what}: its columns must be those of {files[0].name}")
    return pa.concat_tables(tables)


class _Found(NamedTuple):
    """What a reading found; `doubtful`: the lines of a field that would each be a row; `spanning`: rows of several."""

    table: Any
    doubtful: str
    spanning: int


def _read(file: Path, what: str, note: Callable[[str], object]) -> Any:
    separator = _separator(file)
    found, error = None, None
    try:
        found = _with_quotes(file, what, separator)
    except RecurlabError as reason:
        error = reason
    if found is None or found.doubtful:
        literal = _line_by_line(file, separator)
        if literal is not None and (error or separator == "\t"):
            why = f"would take {found.doubtful} into a field" if found else "do not end"
            note(f"{file.name}: {len(literal):,} rows; quotes stand for themselves, around fields they {why}")
            found = _Found(literal, "", 0)
        elif error is not None:
            raise error
        elif found is not None and (literal is not None or separator == "\t"):
            raise RecurlabError(f"{what}: quotes around {found.doubtful}, each of which would be a row: are they one?")
    assert found is not None
    if found.spanning:
        note(f"{file.name}: {found.spanning:,} of {len(found.table):,} rows have line ends within quotes")
    return _with_points(found.table) if separator == ";" else found.table


def _separator(file: Path) -> str:
    """Return the separator between the fields of the first line that has one."""
    allowed = SEPARATORS[file.suffix.lower()]
    for separator in allowed:
        with file.open(encoding="utf-8-sig", newline="") as text:
            header = next((line for line in text if line.strip()), "")
            if len(next(csv.reader([header], delimiter=separator), [])) > 1:
                return separator
    return allowed[0]


def _with_quotes(file: Path, what: str, separator: str) -> _Found:
    doubtful, spanning = "", 0

    def rows() -> Iterator[list[str]]:
        nonlocal doubtful, spanning
        lines: list[str] = []  # of this row
        width = 0
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(_remembered(text, lines, what), delimiter=separator, strict=True)
            while True:
                lines.clear()
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    first = reader.line_num - len(lines) + 1
                    raise RecurlabError(f"{what}: line {first} can't be read ({one_line(error)})") from error
                if row is None:
                    return
                if len(row) < 2 and not "".join(row).strip():
                    continue
                width = width or len(row)
                while len(row) > width and not row[-1]:  # a separator at the end of the line
                    row.pop()
                if len(row) > width:
                    hint = "; a sequence with commas needs quotes" if separator == "," else ""
                    raise RecurlabError(
                        f"{what}: line {reader.line_num} has {len(row)} values for {width} columns{hint}"
                    )
                if len(lines) > 1:
                    spanning += 1
                    if not doubtful and all(line.count(separator) == width - 1 for line in lines):
                        doubtful = f"lines {reader.line_num - len(lines) + 1} to {reader.line_num}"
                yield row

    return _Found(_table(rows(), what), doubtful, spanning)


def _line_by_line(file: Path, separator: str) -> Any:
    """Return the table with a row for each line; None where lines have different numbers of fields."""

    def rows() -> Iterator[list[str]]:
        width = 0
        with file.open(encoding="utf-8-sig", newline="") as text:
            for line in _remembered(text, [], str(file)):
                row = line.rstrip("\r\n").split(separator)
                if len(row) < 2 and not row[0].strip():
                    continue
                width = width or len(row)
                if len(row) != width:
                    raise RecurlabError(f"{len(row)} values for {width} columns")
                yield [quoted[1].replace('""', '"') if (quoted := QUOTED.fullmatch(field)) else field for field in row]

    try:
        return _table(rows(), str(file))
    except RecurlabError:
        return None


def _remembered(text: Iterable[str], lines: list[str], what: str) -> Iterator[str]:
    """Yield lines, and append each to a list."""
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            raise RecurlabError(f"{what}: line {number} has a character NUL: must be text in UTF-8")
        lines.append(line)
        yield line


def _table(rows: Iterator[list[str]], what: str) -> Any:
    """Return rows as a table, the first row being the names of the columns; fields that a row lacks are null."""
    import pyarrow as pa

    names = next(rows, [])
    for name, count in Counter(name for name in names if name).items():
        if count > 1:
            raise RecurlabError(f"{what}: two columns are called {name!r}")
    kept = [column for column, name in enumerate(names) if name]
    schema = pa.schema([(names[column], pa.large_string()) for column in kept])
    parts = []
    while some := list(islice(rows, ROWS)):
        width = max(kept, default=0) + 1
        full = [row if len(row) >= width else [*row, *[None] * (width - len(row))] for row in some]
        columns = [pa.array([row[column] for row in full], pa.large_string()) for column in kept]
        parts.append(pa.record_batch(columns, schema=schema))
    if not parts:
        raise RecurlabError(f"{what}: must have a line of column names and rows below it")
    return pa.Table.from_batches(parts)


def _with_points(table: Any) -> Any:
    """Return a table with decimal points instead of commas in columns that hold only numbers."""
    import pyarrow.compute as pc

    for index, name in enumerate(table.column_names):
        column = table.column(name)
        if (
            pc.any(pc.match_substring(column, ",")).as_py()
            and pc.all(pc.match_substring_regex(column, NUMBERS)).as_py()
        ):
            plain = pc.replace_substring(pc.replace_substring(column, ".", ""), ",", ".")
            table = table.set_column(index, name, plain)
    return table
