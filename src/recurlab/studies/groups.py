"""Runs that differ in their seed alone, and the text of their numbers."""

from dataclasses import dataclass
from math import floor, isfinite, log10
from statistics import fmean, median, stdev

from recurlab.studies.definition import Levels, Study
from recurlab.studies.table import FINISHED, Row


@dataclass(frozen=True)
class Group:
    """The runs of one combination of levels at one scale.

    Attributes:
        levels: of the combination.
        rows: of its finished runs.
        failed: rows of its other runs.
    """

    levels: Levels
    rows: list[Row]
    failed: list[Row]

    def values(self, column: str) -> list[float]:
        """Return the numbers in a column of the finished runs."""
        return [float(row[column]) for row in self.rows if row.get(column)]

    def middle(self, column: str, measure: bool) -> float | None:
        """Return the mean of a column, or the median of a measure; None where there is nothing."""
        values = self.values(column)
        return (median(values) if measure else fmean(values)) if values else None


def group_rows(study: Study, rows: list[Row], scale: str) -> list[Group]:
    """Return a group for each combination of levels at a scale that has rows."""
    found = []
    for levels in study.combinations(scale):
        own = [row for row in rows if row["scale"] == scale and all(row[name] == levels[name] for name in levels)]
        if own:
            done = [row for row in own if row["state"] == FINISHED]
            found.append(Group(levels, done, [row for row in own if row["state"] != FINISHED]))
    return found


def spread(values: list[float]) -> float:
    """Return the sample standard deviation of numbers, 0 where there is none."""
    return stdev(values) if len(values) > 1 and all(map(isfinite, values)) else 0.0


def mean_text(values: list[float]) -> str:
    """Return mean ± standard deviation, rounded to the deviation's first digit, or its second where that is a 1."""
    mean, deviation = fmean(values), spread(values)
    if not deviation:
        return number_text(mean)
    power = floor(log10(max(abs(mean), deviation)))
    if power >= -3:
        decimals = _decimals(deviation)
        return f"{_fixed(mean, decimals)} ± {_fixed(deviation, decimals)}"
    scale = 10.0**power
    decimals = _decimals(deviation / scale)
    return f"({_fixed(mean / scale, decimals)} ± {_fixed(deviation / scale, decimals)})e{power}"


def number_text(value: float) -> str:
    """Return a number with four digits, a whole number with all of its digits."""
    if not isfinite(value) or (value and abs(value) < 1e-3):
        return f"{value:.3g}"
    if value == round(value):
        return f"{value:,.0f}"
    return _fixed(value, max(0, 3 - floor(log10(abs(value)))))


def cost_text(rows: list[Row]) -> str:
    """Return what the finished runs cost: their number, core or GPU time, and devices; "" for none."""
    done = [row for row in rows if row["state"] == FINISHED]
    if not done:
        return ""
    gpu = done[0]["scale"] == "gpu"
    seconds = sum(float(row["seconds"]) * (1 if gpu else int(row["threads"] or 1)) for row in done)
    amount, unit = (seconds / 3600, "hours") if seconds >= 7200 else (seconds, "seconds")
    threads = sorted({int(row["threads"] or 1) for row in done})
    each = "" if gpu else f", {' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'} each"
    runs = f"{len(done)} run{'' if len(done) == 1 else 's'}"
    devices = ", ".join(sorted({row["device"] for row in done}))
    return f"{runs}, {_fixed(amount, 1 if amount < 100 else 0)} {'GPU' if gpu else 'core'}-{unit} ({devices}{each})"


def _decimals(deviation: float) -> int:
    power = floor(log10(deviation))
    return -power + (deviation / 10.0**power < 1.95)


def _fixed(value: float, decimals: int) -> str:
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"
