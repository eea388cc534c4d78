"""From rows of a bench to the table by which `auto` chooses cuDNN or fused on a GPU."""

import csv
import io
from collections import Counter
from dataclasses import astuple
from pathlib import Path

from recurlab.backends.cudnn import name_of
from recurlab.backends.ranking import precision
from recurlab.bench.layers import Case
from recurlab.bench.results import KEYS, Row
from recurlab.errors import RecurlabError, one_line
from recurlab.files import write_text
from recurlab.fuse import measured
from recurlab.fuse.measured import FIELDS, Point, Ratio

NEEDED = (*KEYS, "status", "forward_ms", "forward_backward_ms", "capability", "date")


def adopt(path: Path) -> list[str]:
    """Enter a bench's ratios of fused kernels to torch's layer, which is cuDNN's, into the table.

    A newer measurement takes the place of an older one of the same cell, precision, sizes and
    compute capability.

    Args:
        path: of a file that a bench on a GPU has written.

    Returns:
        Lines to print: what is new in the table, how much of the file, and what of it could not be
            entered.

    Raises:
        RecurlabError: if the file can't be read, or nothing of it can be entered; the table is then
            as it was.
    """
    found, refused = _ratios(path)
    reasons = ", ".join(f"{count} {reason}" for reason, count in refused.items())
    if not found:
        raise RecurlabError(f"{path}: nothing can be entered: {reasons or 'no row of fused without options'}")
    table = {row.point: row for row in measured.read(measured.PATH)}
    new = {point: row for point, row in found.items() if point not in table or table[point].date < row.date}
    lines = [
        f"{row}, {table[point].forward_backward_ratio:.3g} before" if point in table else str(row)
        for point, row in sorted(new.items())
    ]
    if new:
        table |= new
        _write(sorted(table.values()))
    lines.append(f"{measured.PATH}: {len(new)} new of {len(found)} measurements, {len(table)} rows in all")
    return [*lines, *([f"not entered: {reasons}"] if reasons else [])]


def _rows(path: Path) -> list[Row]:
    with measured.opened(path) as reader:
        missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
        if missing:
            raise RecurlabError(f"{path}: not the rows of a bench on a GPU: no column {missing[0]!r}")
        return list(reader)


def _ratios(path: Path) -> tuple[dict[Point, Ratio], Counter[str]]:
    """Return the newest ratio of each point, and the number of fused rows without one by reason."""
    rows = _rows(path)
    beside = {_case(row): row for row in rows if row["backend"] == "torch" and row["status"] == "ok"}
    found: list[Ratio] = []
    refused: Counter[str] = Counter()
    for row in rows:
        if row["backend"] != "fused" or row["option"] != "none":
            continue
        usual = beside.get(_case(row))
        if not row["capability"]:
            refused["of no GPU"] += 1
        elif row["status"] != "ok":
            refused[row["status"].partition(":")[0]] += 1
        elif usual is None:
            refused["without torch's layer beside it"] += 1
        else:
            try:
                found.append(_ratio(row, usual))
            except (ValueError, ArithmeticError, KeyError) as error:
                what = f"cell={row['cell']!r} shape={row['shape']!r}"
                raise RecurlabError(f"{path}: {what}: no row of a bench: {one_line(error)}") from error
    # Of several rows of one run, with other steps or features, the least favourable to the fused
    # kernels counts.
    found.sort(key=lambda ratio: (ratio.date, ratio.forward_backward_ratio))
    return {ratio.point: ratio for ratio in found}, refused


def _case(row: Row) -> tuple[str, ...]:
    """Return the columns that rows measured side by side share."""
    return tuple(row[name] for name in (*KEYS, "date") if name != "backend")


def _ratio(row: Row, usual: Row) -> Ratio:
    case = Case(row["cell"], row["recurrence"], int(row["heads"]), row["option"])
    _, batch, hidden, _ = map(int, row["shape"].split("x"))
    tf32 = row["tf32"] == "true"
    forward, both = (float(row[name]) / float(usual[name]) for name in ("forward_ms", "forward_backward_ms"))
    return Ratio(
        name_of(case.built()[0]), row["recurrence"], row["capability"], precision(row["dtype"], tf32, tf32), hidden,
        batch, float(f"{forward:.4g}"), float(f"{both:.4g}"), row["device"], row["date"],
    )  # fmt: skip


def _write(rows: list[Ratio]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([FIELDS, *map(astuple, rows)])
    try:
        write_text(measured.PATH, text.getvalue())
    except OSError as error:
        raise RecurlabError(f"{measured.PATH}: can't be written: {error.strerror}") from error
