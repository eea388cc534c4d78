"""The row of results.csv that a run directory gives."""

import re
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import recurlab
from recurlab.errors import RecurlabError, check_choice, one_line
from recurlab.foreign import content_of
from recurlab.results.records import Curves, Result
from recurlab.studies.course import Course, pace_of
from recurlab.studies.definition import Measure, Run, Study
from recurlab.studies.reproduction import COURSE, Reproduction
from recurlab.studies.table import DIVERGED, FINISHED, RUNNING, Row, fits, make_row, published_rows
from recurlab.training.run_dir import MOST, RunDir, read_json

NOT_FINITE = re.compile(r"loss=\S+: not finite")  # the start of the reason that a run gives
WRITTEN = ("experiments/", "README.md ")  # files that studies themselves write


def finished_row(study: Study, run: Run, job: str, path: Path) -> Row:
    """Return the row of a run that has finished.

    Args:
        study: whose metric and measures are read.
        run: of the study.
        job: the name of its config.
        path: of its directory.

    Raises:
        RecurlabError: for a metric or a measure's column that the run has not, or a damaged file.
    """
    found = RunDir.open(path)
    result, curves, config = Result.read(found), Curves(found), found.load_config()
    course = _course_of(study, run, curves, config)
    value, chance = _judged(study, run, result, curves, course)
    return make_row(
        run,
        **{study.metric: number_cell(value)},
        **_course(study, run, course),
        **{name: number_cell(measure_value(name, m, result, curves)) for name, m in study.measures.items()},
        chance=number_cell(chance),
        parameters=result.parameters,
        epochs=result.epochs,
        steps=result.steps,
        seconds=number_cell(result.seconds),
        sequences_per_second=number_cell(result.sequences_per_second),
        backend=" ".join(sorted({*result.backends})),
        state=FINISHED,
        job=job,
        **origin_columns(found, config),
    )


def _judged(
    study: Study, run: Run, result: Result, curves: Curves, course: Course | None
) -> tuple[float | None, float | None]:
    """Return the number by which a finished run is judged, and its value without learning."""
    judged = study.judged(run.levels)
    if isinstance(judged, Measure):
        return measure_value(study.metric, judged, result, curves), None
    if course is not None and isinstance(study, Reproduction) and judged == (target := study.target(run.levels)).valid:
        value = course.best(target.better)
        return value, _chance(judged, result, value)
    check_choice("metric", judged, result.metrics)
    return result.metrics[judged], _chance(judged, result, result.metrics[judged])


def _chance(metric: str, result: Result, value: float | None) -> float | None:
    """Return the value of a metric without learning, if need be that of another metric with the same value."""
    split, _, name = metric.partition("/")
    same = [other for other in result.chance if result.metrics.get(f"{split}/{other}") == value]
    return result.chance.get(name, result.chance[same[0]] if same else None)


def unfinished_row(study: Study, run: Run, job: str, state: str, path: Path | None, reason: str = "") -> Row:
    """Return the row of a run that has not finished, and why; one whose loss is not finite has diverged."""
    reason = reason.partition("; the last good checkpoint is ")[0]  # a path on one machine
    state = DIVERGED if state == "failed" and NOT_FINITE.match(reason) else state
    known: dict[str, Any] = {}
    if path is not None and RunDir(path).provenance.is_file():
        found = RunDir.open(path)
        config = found.load_config()
        course = _course_of(study, run, Curves(found), config)
        known = {**origin_columns(found, config), **_course(study, run, course)}
        if course is not None:
            pace = pace_of(found)
            known |= {"epochs": course.epochs, "steps": course.steps, "seconds": number_cell(pace[0]) if pace else None}
    return make_row(run, state=state, reason=one_line(reason), job=job, **known)


def row_of_run(study: Study, run: Run, job: str, found: RunDir) -> Row | None:
    """Return the row of a run directory, None while the run has nothing to show."""
    state = found.state
    if state == FINISHED:
        return finished_row(study, run, job, found.path)
    if state == "failed":
        return unfinished_row(study, run, job, state, found.path, str(read_json(found.status).get("reason")))
    return unfinished_row(study, run, job, RUNNING, found.path) if isinstance(study, Reproduction) else None


def _course_of(study: Study, run: Run, curves: Curves, config: DictConfig) -> Course | None:
    """Return the course of a run's validations; None in a study that keeps none."""
    return Course.read(curves, config, study.target(run.levels)) if isinstance(study, Reproduction) else None


def _course(study: Study, run: Run, course: Course | None) -> dict[str, Any]:
    """Return the columns with a run's validations; {} in a study that keeps none."""
    if course is None or not isinstance(study, Reproduction):
        return {}
    target = study.target(run.levels)
    epochs = [int(row["epoch"]) for row in published_rows(study) if fits(row, run.levels) and row.get("epoch")]
    return dict(zip(COURSE, (number_cell(course.best(target.better)), course.text(epochs)), strict=True))


def measure_value(name: str, measure: Measure, result: Result, curves: Curves) -> float | None:
    """Return a measure of a run, None where its bound was never reached or nothing was logged."""
    column = measure.first_step or measure.of or ""
    if curves.columns:
        check_choice(f"measures.{name}", column, curves.columns)
    points = curves.columns.get(column, [])
    if measure.at_seconds is None:
        low, high = -inf if measure.above is None else measure.above, inf if measure.below is None else measure.below
        return next((step + 1 for step, value in points if low < value < high), None)  # the first one is step 0
    last = measure.at_seconds * result.steps / result.seconds
    within = [value for step, value in points if step + 1 <= last]
    return within[-1] if within else None


def origin_columns(run: RunDir, config: DictConfig) -> dict[str, Any]:
    """Return the columns that say where a run was made: device, threads, commit and date.

    A commit ends in + where code was changed since: anything but the studies themselves.
    """
    found = read_json(run.provenance)
    trainer, device = config.get("trainer") or {}, found.get("device")
    if not isinstance(device, Mapping) or not isinstance(trainer, Mapping) or not isinstance(found.get("git"), Mapping):
        raise RecurlabError(f"{run.provenance}: not what a run writes")
    gpu = device.get("cuda") and trainer.get("accelerator") != "cpu"
    # Where recurlab was installed. Older runs do not tell: then the folder of the command, or this installation.
    paths = [Path(str(path)) for path in (found.get("source"), *found.get("command", [])[:1], recurlab.__file__)]
    known = [(str(commit), folder) for folder, commit in found["git"].items() if commit]
    commits = [commit for path in paths for commit, folder in known if path.is_relative_to(folder)]
    return {
        "device": device.get("name") if gpu else found.get("cpu") or device.get("name"),
        "threads": found.get("threads"),
        "commit": commits[0][:10] + ("+" if _changed(run.patch) else "") if commits else None,
        "date": found.get("time"),
    }


def _changed(patch: Path) -> bool:
    try:
        lines = content_of(patch, MOST).decode(errors="replace").splitlines()
    except OSError:
        return False
    changed = [line.removeprefix("diff --git a/") for line in lines if line.startswith("diff --git a/")]
    return any(not path.startswith(WRITTEN) for path in changed)


def number_cell(value: float | None) -> str | None:
    """Return the text of a number in results.csv."""
    return None if value is None else f"{value:.6g}"
