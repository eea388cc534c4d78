"""The commands of `recurlab study`; each returns an exit code."""

from typing import Any

from recurlab.cli.commands import resumable, submit_jobs
from recurlab.errors import RecurlabError, say


def study_run(name: str, scale: str, words: list[str]) -> int:
    """Run what is missing of a study, or hand it to a cluster, and report what there is."""
    from recurlab.studies.speed import SpeedStudy

    study = _study(name)
    if isinstance(study, SpeedStudy):
        if words:
            raise RecurlabError(f"{words[0]!r}: can't be set here; its settings are in {study.path}")
        from recurlab.bench.run import run_bench

        failed = [run_bench(settings, draw=False) for settings in study.runs(scale)]
        return max(failed) or _report([name])
    from recurlab.studies.run import run_study

    with resumable():
        done = run_study(study, scale, words)
    submit_jobs([(job.config, job.resolved, job.identity) for job in done.waiting])
    _report([name])
    if done.failed:
        raise RecurlabError(f"{done.failed} of {done.runs} runs failed, each for the reason above")
    return 0


def study_status(name: str, scale: str | None, words: list[str]) -> int:
    """Print how a study stands, at all of its scales where none is named."""
    from recurlab.studies.run import jobs_of
    from recurlab.studies.status import status_lines

    study = _of_runs(name)
    for each in [scale] if scale else study.scales:
        for line in status_lines(study, each, jobs_of(study, each, words)):
            print(line)
    return 0


def study_collect(name: str, scale: str | None, words: list[str]) -> int:
    """Take what there is of a study's runs into its results.csv, and report it."""
    from recurlab.studies.run import gather_rows, jobs_of
    from recurlab.studies.table import Results

    study = _of_runs(name)
    for each in [scale] if scale else study.scales:
        jobs = jobs_of(study, each, words)
        missing = gather_rows(study, Results(study), jobs)
        print(f"{name}: {len(jobs) - len(missing)} of {len(jobs)} runs at scale {each} are there")
    return _report([name])


def _of_runs(name: str) -> Any:
    """Return a study that has runs."""
    from recurlab.studies.definition import Study

    study = _study(name)
    if not isinstance(study, Study):
        raise RecurlabError(f"study={name!r}: a study of speed has no runs")
    return study


def _study(name: str) -> Any:
    """Return a study; a line says where a former word is used for it."""
    from recurlab.studies.folder import former_words, load_study

    study = load_study(name)
    for line in former_words(name, study):
        say(line)
    return study


def study_report(names: list[str], check: bool = False) -> int:
    """Write tables and pictures of studies, of all if none is named; with `check` return 1 where they are others."""
    from recurlab.studies.folder import study_names

    for name in names or study_names():
        _study(name)
    return _report(names, check)


def _report(names: list[str], check: bool = False) -> int:
    from recurlab.studies.report import report_studies

    stale = report_studies(names, check)
    for path in stale:
        print(f"{path}: {'not what the CSV files give; run recurlab study report' if check else 'written'}")
    return 1 if check and stale else 0


def study_list() -> int:
    """Print the studies."""
    from recurlab.studies.overview import study_lines

    for line in study_lines():
        print(line)
    return 0
