"""What the fused kernels are to reach on a GPU, and how near measured rows come to it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from recurlab.bench.floor import words
from recurlab.bench.results import Row

# What a diagonal cell's kernels move in a training step, with gates computed anew in the backward
# pass. The rnn could do with 3 words backward, as its output tells the slope of tanh and ReLU; the
# kernels are written from any step, for which that need not hold.
WORDS = {"indrnn": words(1, 1), "indy_gru": words(3, 1), "indy_lstm": words(4, 2)}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MANY = 16_384  # B * H from which on a diagonal cell can fill a GPU
PASSES = ("forward", "backward")
OPTIONS = ("zoneout", "mask", "resets", "recurrent_dropout")


@dataclass(frozen=True)
class Goal:
    """A bound for figures: the least value allowed if `at_least`, else the largest."""

    name: str
    bound: float
    at_least: bool = False


SHARE = Goal(f"diagonal, B*H >= {MANY}: bandwidth beside that of a copy", 0.8, at_least=True)
STEP = Goal(f"diagonal, B*H < {MANY}: ns a step", 100)
SPEEDUP = Goal("indy_gru: times as fast as torch.nn.GRU, without the projection", 20, at_least=True)
RATIO = Goal("dense: time beside torch's layer, forward and backward", 1)
MEDIAN = Goal("dense: the median of these", 1 / 3)
MICRO = Goal("dense, H <= 512: us a step forward, without the projection", 1)
OVERHEAD = Goal("an option: time beside the layer without it, forward and backward", 1.1)
GOALS = (SHARE, STEP, SPEEDUP, RATIO, MEDIAN, MICRO, OVERHEAD)


@dataclass(frozen=True)
class GoalFigure:
    """One number that was found, and where."""

    goal: Goal
    point: str
    value: float

    @property
    def met(self) -> bool:
        """Whether it keeps within the goal's bound."""
        return self.value >= self.goal.bound if self.goal.at_least else self.value <= self.goal.bound


def figures(rows: list[Row]) -> list[GoalFigure]:
    """Return all figures that rows of one device give, in the order of the goals."""
    by_key = {_key(row): row for row in rows if row["status"] == "ok"}
    found: list[GoalFigure] = []
    for row in by_key.values():
        if row["backend"] != "fused":
            continue
        if row["option"] != "none":
            found += _overhead(row, by_key)
        elif row["recurrence"] == "diagonal":
            found += [*_moved(row), *_speedup(row, by_key)]
        elif row["recurrence"] == "dense":
            found += _dense(row)
    ratios: dict[str, list[float]] = {}
    for figure in found:
        if figure.goal is RATIO:
            ratios.setdefault(figure.point.rpartition(" ")[0], []).append(figure.value)
    found += [GoalFigure(MEDIAN, point, median(values)) for point, values in ratios.items()]
    return sorted(found, key=lambda figure: GOALS.index(figure.goal))


def needed_bytes(row: Row) -> tuple[int, int]:
    """Return the bytes that a diagonal cell's two passes move, each read or written once."""
    steps, batch, hidden, _ = _sizes(row)
    forward, backward = (words * BYTES[row["dtype"]] * steps * batch * hidden for words in WORDS[row["cell"]])
    return forward, backward


def _moved(row: Row) -> Iterator[GoalFigure]:
    steps, batch, hidden, _ = _sizes(row)
    if row["cell"] not in WORDS:
        return
    for name, size, seconds in zip(PASSES, needed_bytes(row), _alone(row), strict=True):
        if seconds <= 0:  # lost in the projection's own swing
            continue
        if batch * hidden < MANY:
            yield GoalFigure(STEP, f"{_point(row)} {name}", seconds / steps * 1e9)
        elif row["copy_gb_s"]:
            yield GoalFigure(SHARE, f"{_point(row)} {name}", size / seconds / (float(row["copy_gb_s"]) * 1e9))


def _speedup(row: Row, by_key: dict[tuple[str, ...], Row]) -> Iterator[GoalFigure]:
    theirs = by_key.get(_key(row | {"cell": "gru", "recurrence": "dense", "backend": "torch"}))
    if row["cell"] != "indy_gru" or theirs is None:
        return
    ours, usual = _alone(row), _alone(theirs)
    for name, fast, slow in (("forward", ours[0], usual[0]), ("forward and backward", sum(ours), sum(usual))):
        if fast > 0 and slow > 0:
            yield GoalFigure(SPEEDUP, f"{_point(row)} {name}", slow / fast)


def _dense(row: Row) -> Iterator[GoalFigure]:
    steps, _, hidden, _ = _sizes(row)
    if row["forward_backward_ratio"]:
        yield GoalFigure(RATIO, _point(row), float(row["forward_backward_ratio"]))
    seconds = _alone(row)[0]
    if hidden <= 512 and seconds > 0:
        yield GoalFigure(MICRO, _point(row), seconds / steps * 1e6)


def _overhead(row: Row, by_key: dict[tuple[str, ...], Row]) -> Iterator[GoalFigure]:
    plain = by_key.get(_key(row | {"option": "none"}))
    if row["option"] in OPTIONS and plain is not None:
        ratio = float(row["forward_backward_ms"]) / float(plain["forward_backward_ms"])
        yield GoalFigure(OVERHEAD, f"{_point(row)} {row['option']}", ratio)


def _alone(row: Row) -> tuple[float, float]:
    """Return the seconds of the recurrence's two passes, 0 where they were not measured."""
    forward, backward = (float(row[f"recurrence_{name}_ms"] or 0) / 1000 for name in PASSES)
    return forward, backward


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("dtype", "tf32", "shape", "cell", "recurrence", "heads", "option", "backend"))


def _point(row: Row) -> str:
    precision = "tf32" if row["dtype"] == "float32" and row["tf32"] == "true" else row["dtype"]
    return f"{row['cell']} {precision} {row['shape']}"


def _sizes(row: Row) -> tuple[int, int, int, int]:
    steps, batch, hidden, features = (int(size) for size in row["shape"].split("x"))
    return steps, batch, hidden, features


def goals_summary(rows: list[Row]) -> list[str]:
    """Return lines: how many figures meet each goal, those that do not, and what has none."""
    found = figures(rows)
    lines = ["goals: met of measured, worst and median figure"]
    for goal in GOALS:
        values = sorted((f.value for f in found if f.goal is goal), reverse=not goal.at_least)
        if values:
            met = sum(f.met for f in found if f.goal is goal)
            lines.append(f"{met:4} of {len(values):3}  {_number(values[0])}  {_number(median(values))}  {_title(goal)}")
        else:
            lines.append(f"   nothing measured          {_title(goal)}")
    for goal in GOALS:
        missed = [f for f in found if f.goal is goal and not f.met]
        lines += [f"missed: {_title(goal)}"] if missed else []
        lines += [f"  {_number(f.value)}  {f.point}" for f in missed]
    return lines + list(_without_figure(rows))


def _title(goal: Goal) -> str:
    return f"{goal.name}: {'at least' if goal.at_least else 'at most'} {goal.bound:.3g}"


def _number(value: float) -> str:
    return f"{value:8.3g}"


def _without_figure(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for each status but ok, with the points that have it."""
    points: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            option = "" if row["option"] == "none" else f" {row['option']}"
            points.setdefault(f"{row['backend']}: {row['status']}", []).append(f"{_point(row)}{option}")
    for status, named in points.items():
        yield f"{status}: {len(named)} points: {', '.join(named[:6])}{', ...' if len(named) > 6 else ''}"
