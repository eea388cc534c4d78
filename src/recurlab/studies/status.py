"""The state of a study: which runs have ended or are running, their progress, and the time that is left."""

from recurlab.launch.jobs import Job
from recurlab.launch.queue import is_free, run_of
from recurlab.results.records import Curves
from recurlab.studies.course import Course, pace_of
from recurlab.studies.definition import Run, Study
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.table import AHEAD, DIVERGED, ENDED, FINISHED, RUNNING, Results, Row
from recurlab.training.run_dir import RunDir

STATES = (FINISHED, DIVERGED, RUNNING, "stopped", "failed", AHEAD)


def status_lines(study: Study, scale: str, jobs: list[tuple[Run, Job]]) -> list[str]:
    """Return a line that counts the runs of a study by their state, then a line for each run.

    Args:
        study: whose results.csv and runs are looked at.
        scale: of its runs.
        jobs: of that scale.
    """
    rows = Results(study).rows()
    lines: list[str] = []
    counts = dict.fromkeys(STATES, 0)
    hours = 0.0
    for run, job in sorted(jobs, key=lambda pair: study.turn(pair[0])):
        row, found = rows.get(run.key), run_of(job)
        state = _state(row if row is not None and job.identity.has(row["job"]) else None, found)
        said, left = _far(study, run, row if state in ENDED else None, found)
        counts[state] += 1
        hours += 0.0 if state in ENDED else left
        lines.append(f"{state:>9}  {run}{said}")
    named = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    rest = f"; about {hours:.1f} core-hours to go" if isinstance(study, Reproduction) else ""
    return [f"{study.folder.name}: {len(jobs)} runs at scale {scale}: {named}{rest}", *lines]


def _state(row: Row | None, found: RunDir | None) -> str:
    if row is not None and row["state"] in ENDED:
        return row["state"]
    if found is None:
        return AHEAD
    if not is_free(found, patience=0.0):
        return RUNNING
    return found.state if found.state in (FINISHED, "failed") else "stopped"


def _far(study: Study, run: Run, row: Row | None, found: RunDir | None) -> tuple[str, float]:
    """Return the progress of a run in words, and the core-hours that are left."""
    if row is not None and row["state"] == FINISHED:
        return f": {row[study.metric] or 'never'}, {float(row['seconds']) / 3600:.2f} h", 0.0
    if not isinstance(study, Reproduction):
        return "", 0.0
    hours = study.recipe(run.levels).hours
    if found is None:
        return f": about {hours:.2g} h", hours
    target = study.target(run.levels)
    course, pace = Course.read(Curves(found), found.load_config(), target), pace_of(found)
    if course.of is None or pace is None:
        return f": step {course.steps:,}, about {hours:.2g} h in all", hours
    left = max(0, course.of - course.steps) * pace[0] / pace[1] / 3600
    best = course.best(target.better)
    valid = "" if best is None else f", {target.valid} {best:.4g} at best"
    said = f": epoch {course.epochs}, step {course.steps:,} of {course.of:,}{valid}"
    return f"{said}, about {left:.2f} h to go", left
