"""Runs what is missing of a study."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import OmegaConf

from recurlab.errors import RecurlabError, did_you_mean, say
from recurlab.launch.jobs import Job, Outcome, check_jobs
from recurlab.launch.launchers import Local
from recurlab.launch.queue import run_all, run_of
from recurlab.studies.collect import finished_row, row_of_run, unfinished_row
from recurlab.studies.definition import Run, Study
from recurlab.studies.folder import FORMER_NAMES
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.status import status_lines
from recurlab.studies.table import AHEAD, ENDED, FINISHED, Results, Row
from recurlab.training.job import WITHOUT_EFFECT, Identity

ALLOWED = tuple(key for key in WITHOUT_EFFECT if key != "resume")


@dataclass
class Done:
    """The outcome of `run_study`.

    Attributes:
        runs: how many there are at the scale, and of these:
        failed: that were tried and failed.
        waiting: that are for a cluster to run.
    """

    runs: int
    failed: int = 0
    waiting: list[Job] = field(default_factory=list)


def run_study(study: Study, scale: str, words: Sequence[str] = ()) -> Done:
    """Run what is missing of a study at a scale, on this machine, and keep each result as it comes.

    Missing is what has no row in results.csv, one of another config, or one of a run that failed or
    goes on.

    Args:
        study: what to run.
        scale: cpu, gpu or paper.
        words: of a command line, for what has no effect on the results: launcher, logger,
            output_dir and the like.

    Raises:
        RecurlabError: for words of any other key, and for a run that can't be composed or built,
            before the first one.
        Preempted: if one of them was told to end; so are all, then.
    """
    jobs = sorted(jobs_of(study, scale, words), key=lambda pair: study.turn(pair[0]))
    if isinstance(study, Reproduction):
        for line in status_lines(study, scale, jobs):
            if not line.startswith(AHEAD):
                print(line, flush=True)
    table = Results(study)
    missing = gather_rows(study, table, jobs)
    print(f"{study.folder.name}: {len(jobs) - len(missing)} of {len(jobs)} runs at scale {scale} are there", flush=True)
    done = Done(len(jobs))
    if not missing:
        return done
    missing = _built(study, missing)
    if not missing:
        return done
    launcher = missing[0][1].config.launcher
    if not isinstance(launcher, Local):
        done.waiting = [job for _, job in missing]
        return done
    given = any(word.startswith(("launcher.jobs=", "launcher={")) for word in words)
    at_once = launcher.jobs if given else 1 if scale == "gpu" else os.cpu_count() or 1
    done.failed = _run_here(study, table, missing, at_once, threads=1 if scale == "paper" else None)
    return done


def _built(study: Study, missing: list[tuple[Run, Job]]) -> list[tuple[Run, Job]]:
    """Return the runs whose model can be built; in a study of published numbers those whose data are here."""
    rows = {tuple(run.levels.values()): job for run, job in missing}
    try:
        check_jobs(list(rows.values()))
        return missing
    except RecurlabError:
        if not isinstance(study, Reproduction):
            raise
    good = {levels for levels, job in rows.items() if _is_built(levels, job)}
    return [(run, job) for run, job in missing if tuple(run.levels.values()) in good]


def _is_built(levels: tuple[str, ...], job: Job) -> bool:
    """Return whether the model of a row can be built; say why not."""
    try:
        check_jobs([job])
        return True
    except RecurlabError as error:
        say(f"{', '.join(levels)}: left out: {error}")
        return False


def _run_here(study: Study, table: Results, missing: list[tuple[Run, Job]], at_once: int, threads: int | None) -> int:
    """Run what is missing, show and keep each result as it comes, and return how many runs failed."""
    by_name: dict[str, list[Run]] = {}
    for one, job in missing:
        by_name.setdefault(job.name, []).append(one)
    ended = failed = 0
    hours = _hours(study, [one for one, _ in missing])

    def begun(job: Job) -> None:
        if hours:
            one = by_name[job.name][0]
            print(f"{one}: begins or goes on, about {hours[one.key]:.2g} h in all", flush=True)

    for job, outcome in run_all([job for _, job in missing], at_once, quiet=True, threads=threads, begun=begun):
        for one in by_name[job.name]:  # levels that make the same config share a run
            ended += 1
            if isinstance(study, Reproduction) and outcome.path is None:
                say(f"{one}: left out: {outcome.reason}")  # it did not begin, for example because its data are not here
                continue
            row = _row_of(study, one, job, outcome)
            table.put([row])
            failed += row["state"] not in ENDED
            hours.pop(one.key, None)
            rest = f"; about {sum(hours.values()):.1f} h to go" if hours else ""
            print(f"[{ended}/{len(missing)}] {one}: {_said(study, row)}{rest}", flush=True)
    return failed


def _row_of(study: Study, run: Run, job: Job, outcome: Outcome) -> Row:
    if outcome.state == FINISHED and outcome.path is not None:
        return finished_row(study, run, job.name, outcome.path)
    return unfinished_row(study, run, job.name, outcome.state, outcome.path, outcome.reason)


def _said(study: Study, row: Row) -> str:
    """Return the outcome of a run in a few words."""
    if row["state"] != FINISHED:
        return f"{row['state']}: {row['reason']}"
    value = f"{float(row[study.metric]):.4g}" if row[study.metric] else "never"
    return f"{study.metric} {value}, {float(row['seconds']):.1f} s"


def _hours(study: Study, runs: list[Run]) -> dict[tuple[str, ...], float]:
    """Return the core-hours of each run, {} in a study that does not tell."""
    return {run.key: study.recipe(run.levels).hours for run in runs} if isinstance(study, Reproduction) else {}


def _check(words: Sequence[str]) -> None:
    for word in words:
        key = word.partition("=")[0]
        if "=" not in word or not any(key == name or key.startswith(f"{name}.") for name in ALLOWED):
            hint = did_you_mean(key, ALLOWED, cutoff=0.8)
            raise RecurlabError(
                f"{word!r}: can't be set here, where allowed are {', '.join(ALLOWED)}; what changes results belongs "
                f"into study.yaml{hint}"
            )


def jobs_of(study: Study, scale: str, words: Sequence[str] = ()) -> list[tuple[Run, Job]]:
    """Return the runs of a study with their jobs; arguments and errors as of `run_study`."""
    _check(words)
    name = study.folder.name
    given = [word.partition("=")[2].strip("'\"") for word in words if word.startswith("output_dir=")]
    folder = _folder(Path(given[-1] if given else "runs"), name) / scale
    rest = [word for word in words if not word.startswith("output_dir=")]
    jobs: list[tuple[Run, Job]] = []
    for one in study.runs(scale):
        own = [*one.words, f"output_dir={_quoted(str(folder))}"]
        if "logger=wandb" in (*one.words, *rest):
            tags = ", ".join(_quoted(f"{factor}={level}"[:64]) for factor, level in one.levels.items())
            own += [f"logger.group={_quoted(name)}", f"logger.tags=[{tags}]"]
        own += rest
        first = jobs[-1][1] if jobs else None
        if first is None or jobs[-1][0].levels != one.levels or "seed}" in " ".join(own):
            try:
                first = Job.of(own)
            except RecurlabError as error:
                raise RecurlabError(f"{study.folder}: {one}: {error}") from error
            jobs.append((one, first))
        else:
            jobs.append((one, _seeded(first, one.seed, own)))
    return jobs


def _folder(top: Path, name: str) -> Path:
    """Return where the runs of a study are kept; those that were made under a former name stay where they are."""
    known = [top / former for former, now in FORMER_NAMES.items() if now == name and (top / former).is_dir()]
    return known[0] if known and not (top / name).is_dir() else top / name


def _seeded(job: Job, seed: int, words: Sequence[str]) -> Job:
    """Return a job that differs from another one in its seed alone; composing it would take a third of a second."""
    resolved = job.resolved.copy()
    OmegaConf.update(resolved, "seed", seed)
    config = replace(job.config, seed=seed)
    return Job((*words, "resume=auto"), config, resolved, Identity.of(config, resolved, job.identity))


def gather_rows(study: Study, table: Results, jobs: list[tuple[Run, Job]]) -> list[tuple[Run, Job]]:
    """Put the rows of runs that are there into the table, and return the runs that have not ended."""
    rows, found, missing = table.rows(), list[Row](), list[tuple[Run, Job]]()
    for run, job in jobs:
        row, known = rows.get(run.key), run_of(job)
        there = row is not None and row["state"] in ENDED and job.identity.has(row["job"])
        there = there and row is not None and all(name in row for name in study.columns)
        fresh = None if known is None else row_of_run(study, run, job.name, known)
        if fresh is not None and fresh["state"] in ENDED:
            # Read again, for the study may ask for another measure by now.
            if row is None or not there or (row["date"] == fresh["date"] and row != fresh):
                found.append(fresh)
        elif not there:
            missing.append((run, job))
            found += [] if fresh is None else [fresh]
        elif row is not None and job.identity.data and not job.config.data.originals and row["job"] != job.name:
            found.append({**row, "job": job.name})  # from a version whose jobs were not named by their files
    if found:
        table.put(found)
    return missing


def _quoted(text: str) -> str:
    """Return a text quoted for an override."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
