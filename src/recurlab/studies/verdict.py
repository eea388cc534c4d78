"""What a study of published numbers found: each number beside ours, and whether we reproduced it."""

from dataclasses import dataclass
from decimal import Decimal
from statistics import fmean

from recurlab.problems.metrics import sign_of
from recurlab.studies.definition import Levels
from recurlab.studies.groups import mean_text, spread
from recurlab.studies.reproduction import RESULT, Recipe, Reproduction, Target
from recurlab.studies.table import AHEAD, DIVERGED, FINISHED, RUNNING, Results, Row, fits, published_rows

INSIDE, BETTER, SHORT, FIRST = "inside", "better", "short", "first"
GOOD = (INSIDE, BETTER)
SPREADS = 2  # standard deviations over seeds


@dataclass(frozen=True)
class Entry:
    """One row: a model on a benchmark, its published number, and our runs.

    Attributes:
        levels, target, recipe: of the study.
        known: its published number, None where there is none.
        log: published validations, by their epochs.
        rows: of its runs.
    """

    levels: Levels
    target: Target
    recipe: Recipe
    known: Row | None
    log: dict[int, float]
    rows: list[Row]

    def of(self, state: str) -> list[Row]:
        """Return the rows of the runs that are in a state."""
        return [row for row in self.rows if row["state"] == state]

    @property
    def values(self) -> list[float]:
        """The results of the finished runs, without those that never reached the measure."""
        return [float(row[RESULT]) for row in self.of(FINISHED) if row[RESULT]]

    @property
    def name(self) -> str:
        """The experiment, and what is changed in it."""
        return " ".join([self.recipe.experiment, *self.recipe.changes])

    @property
    def gap(self) -> float | None:
        """By how much ours is better than what is published, in the unit of the metric; None where one is missing."""
        if self.known is None or not self.values:
            return None
        return sign_of(self.target.better) * (fmean(self.values) - float(self.known["value"]))

    @property
    def tolerance(self) -> float:
        """By how much ours may differ from the published number and count as the same.

        That is the spread of the published number, half a unit of its last digit, or two standard
        deviations of ours, whichever is the largest.
        """
        if self.known is None:
            return 0.0
        exponent = Decimal(self.known["value"]).as_tuple().exponent
        assert isinstance(exponent, int)
        return max(float(self.known.get("spread") or 0), 0.5 * 10.0**exponent, SPREADS * spread(self.values))

    @property
    def verdict(self) -> str:
        """Return inside, better, short, diverged, running, failed or not begun; first where nothing is published."""
        done = self.of(FINISHED)
        if not done:
            states = [state for state in (DIVERGED, RUNNING, "failed") if self.of(state)]
            return states[0] if states else AHEAD
        if self.known is None:
            return FIRST
        if len(self.values) < len(done) or self.gap is None:  # never reached
            return SHORT
        return INSIDE if abs(self.gap) <= self.tolerance else BETTER if self.gap > 0 else SHORT

    def said(self) -> str:
        """Return our result in a few words."""
        done, values = self.of(FINISHED), self.values
        if done:
            never = "" if len(values) == len(done) else f"never in {len(done) - len(values)} of {len(done)}"
            return ", ".join(filter(None, (f"{mean_text(values)} ({len(values)})" if values else "", never)))
        for row in self.rows:
            if row["state"] == RUNNING and row.get("valid"):
                return f"{self.target.valid} {float(row['valid']):.4g} so far"
            if row["state"] == DIVERGED:
                return f"diverged: {row['reason']}"
        return ""


def entries_of(study: Reproduction) -> list[Entry]:
    """Return the rows of a study with their published numbers and our runs."""
    rows, known = list(Results(study).rows().values()), published_rows(study)
    found = []
    for levels in study.combinations(next(iter(study.scales))):
        own = [row for row in known if fits(row, levels)]
        number = next((row for row in own if not row.get("epoch")), None)
        log = {int(row["epoch"]): float(row["value"]) for row in own if row.get("epoch")}
        mine = [row for row in rows if all(row[name] == level for name, level in levels.items())]
        found.append(Entry(levels, study.target(levels), study.recipe(levels), number, log, mine))
    return found


def summary_sentence(found: list[Entry]) -> str:
    """Return a sentence: how many published numbers were reproduced, and which were not."""
    all_known = [entry for entry in found if entry.known is not None]
    by: dict[str, list[Entry]] = {}
    for entry in all_known:
        by.setdefault(entry.verdict, []).append(entry)
    good = sum(len(by.get(verdict, [])) for verdict in GOOD)
    parts = [f"{len(by[verdict])} {words}" for verdict, words in WORDS.items() if verdict in by]
    rest = [f"{words}: {_named(by[verdict])}" for verdict, words in OTHERS.items() if verdict in by]
    split = f" ({', '.join(parts)})" if parts else ""
    start = f"**{good} of {len(all_known)} published numbers were reproduced on a laptop's CPU{split}**"
    return "; ".join([start, *rest]) + "."


WORDS = {INSIDE: "inside the spread", BETTER: "better"}
OTHERS = {
    SHORT: "short of it", DIVERGED: "diverged", RUNNING: "still running", "failed": "failed", AHEAD: "not begun",
}  # fmt: skip


def _named(found: list[Entry]) -> str:
    """Return the names of rows, benchmark by benchmark."""
    models: dict[str, list[str]] = {}
    for entry in found:
        models.setdefault(entry.levels["benchmark"], []).append(entry.levels["model"])
    return ", ".join(f"{benchmark} ({'; '.join(names)})" for benchmark, names in models.items())
