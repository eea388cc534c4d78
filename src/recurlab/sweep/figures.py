"""The picture of a sweep."""

import warnings
from collections.abc import Sequence
from math import ceil, isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna import Study
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection

from recurlab.errors import one_line
from recurlab.files import write_bytes
from recurlab.results.figures import png, short
from recurlab.sweep.trials import Row

COLUMNS = 3
ENOUGH = 4  # results, below which importances mean nothing
STATES = {"finished": "o", "pruned": "x"}


def draw_sweep(study: Study, rows: Sequence[Row], keys: Sequence[str], metric: str, path: Path) -> Path:
    """Draw the values over the trials, the parameters' importances, and the values over each one.

    Args:
        study: of the trials.
        rows: how they have ended.
        keys: of the parameters.
        metric: what the values are called.
        path: of the picture.

    Returns:
        The path.
    """
    shown = [row for row in rows if row.value is not None and isfinite(row.value)]
    importances = _importances(study)
    count = 1 + bool(importances) + len(keys)
    columns = min(count, COLUMNS)
    figure = Figure(figsize=(4.6 * columns, 0.4 + 3.4 * ceil(count / columns)), layout="constrained")
    figure.suptitle(one_line(study.study_name), parse_math=False)
    panels = [figure.add_subplot(ceil(count / columns), columns, index + 1) for index in range(count)]
    _draw_course(panels[0], shown, metric, study.direction == StudyDirection.MAXIMIZE)
    if importances:
        _draw_importances(panels[1], importances)
    for axes, key in zip(panels[1 + bool(importances) :], keys, strict=True):
        _draw_parameter(axes, shown, key, metric, study)
    write_bytes(path, png(figure))
    return path


def _importances(study: Study) -> dict[str, float]:
    """Return each parameter's share in explaining good results; {} if there are too few trials."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    if len(finished) < ENOUGH:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # as of trials that all have the same value
        return {}
    return found if len(found) > 1 and all(isfinite(share) for share in found.values()) else {}


def _draw_course(axes: Axes, rows: Sequence[Row], metric: str, maximal: bool) -> None:
    best, bests = None, []
    for row in rows:
        if row.state == "finished" and row.value is not None:
            best = row.value if best is None else (max if maximal else min)(best, row.value)
            bests.append((row.number, best))
    for state, mark in STATES.items():
        points = [(row.number, row.value) for row in rows if row.state == state]
        if points:
            axes.plot(*zip(*points, strict=True), mark, label=state, markersize=4)
    if bests:
        axes.step(*zip(*bests, strict=True), where="post", color="grey", label="best so far")
    _finish(axes, rows, "trials", "trial", metric)
    axes.legend()


def _draw_importances(axes: Axes, importances: dict[str, float]) -> None:
    names = list(reversed(importances))
    axes.barh([one_line(name) for name in names], [importances[name] for name in names])
    axes.set_title("importance (PED-ANOVA)")
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3, axis="x")


def _draw_parameter(axes: Axes, rows: Sequence[Row], key: str, metric: str, study: Study) -> None:
    rows = [row for row in rows if key in row.parameters]
    texts = sorted({str(row.parameters[key]) for row in rows if isinstance(row.parameters[key], str)})
    for state, mark in STATES.items():
        points = [
            (texts.index(value) if isinstance(value := row.parameters[key], str) else value, row.value)
            for row in rows
            if row.state == state
        ]
        if points:
            axes.plot(*zip(*points, strict=True), mark, markersize=4)
    if texts:
        labels = [short(text) for text in texts]
        axes.set_xticks(range(len(texts)), labels, rotation=30 if max(map(len, labels)) > 6 else 0, parse_math=False)
        axes.set_xlim(-0.5, len(texts) - 0.5)
    elif any(getattr(trial.distributions.get(key), "log", False) for trial in study.get_trials(deepcopy=False)):
        axes.set_xscale("log")
    _finish(axes, rows, key, key, metric)


def _finish(axes: Axes, rows: Sequence[Row], title: str, across: str, metric: str) -> None:
    values = [row.value for row in rows if row.value is not None]
    if values and min(values) > 0 and max(values) > 5 * min(values):
        axes.set_yscale("log")
    axes.set_title(one_line(title), parse_math=False)
    axes.set_xlabel(one_line(across), parse_math=False)
    axes.set_ylabel(one_line(metric), parse_math=False)
    axes.grid(alpha=0.3)
