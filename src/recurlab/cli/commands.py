"""What each command does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from recurlab.errors import Preempted, RecurlabError, say
from recurlab.imports import importing


def train(words: list[str], multirun: bool) -> int:
    """Train what the words say: one run, or with `multirun` the grid of all their lists."""
    if multirun:
        return _grid(words)
    with importing():
        from recurlab.training.resume import compose_train

        config, resolved = compose_train(words)
    from recurlab.launch.launchers import Local

    if not isinstance(config.launcher, Local):
        from recurlab.training.job import Identity

        return submit_jobs([(config, resolved, Identity.of(config, resolved))])
    with importing():
        from recurlab.results.figures import draw_curves
        from recurlab.results.summary import run_summary
        from recurlab.training.run import train

    run = train(config, resolved)
    if run is not None:
        draw_curves(run.path)
        print(run_summary(run.path))
    return 0


def _grid(words: list[str]) -> int:
    from recurlab.compose import expand
    from recurlab.launch.jobs import Job, check_jobs
    from recurlab.launch.launchers import Local
    from recurlab.launch.queue import run_all
    from recurlab.training.ranks import started_by_others

    if others := started_by_others():
        started = f"{others.by} has started {others.world}"
        raise RecurlabError(f"-m: a grid is run by one process, but {started}; use launcher=slurm for its runs")
    # The whole grid is composed and built before its first job starts, so that a mistake costs nothing.
    jobs = [Job.of(job) for job in expand(words)]
    launcher = jobs[0].config.launcher
    if any(job.config.launcher != launcher for job in jobs):
        raise RecurlabError("launcher: all jobs of a grid need the same one")
    check_jobs(jobs)
    if not isinstance(launcher, Local):
        return submit_jobs([(job.config, job.resolved, job.identity) for job in jobs])
    from recurlab.results.summary import run_summary

    failures = 0
    with resumable():
        for place, (job, outcome) in enumerate(run_all(jobs, launcher.jobs), start=1):
            print(f"[{place}/{len(jobs)}] {' '.join(job.words)}")
            if outcome.state == "finished" and outcome.path is not None:
                print(run_summary(outcome.path))
            else:
                failures += 1  # the grid goes on
                say(outcome.reason)
    if failures:
        raise RecurlabError(f"{failures} of {len(jobs)} runs failed, each for the reason above")
    return 0


def submit_jobs(jobs: list[tuple[Any, Any, Any]]) -> int:
    """Hand jobs to a cluster: (config, resolved, identity) of each, whose run directories are made now."""
    from recurlab.launch.slurm import submit
    from recurlab.training.known import check_data, is_of
    from recurlab.training.resume import changed_words, create_run, find_run

    for config, resolved, identity in jobs:
        run = find_run(config, identity)
        if run is not None and run.state == "finished" and is_of(run, identity):
            print(f"{run.path} has finished before")
            continue
        new, trainer, words = run is None, config.trainer, list[str]()
        if run is not None:
            check_data(run, identity)
            words = changed_words(run, resolved)
        run = run or create_run(config, resolved, identity)
        if new:
            run.set_status("queued")
        try:
            (number,) = submit([run.path], config.launcher, trainer.devices, trainer.num_nodes, config.plugins, words)
        except RecurlabError as error:
            if new:
                run.set_status("failed", reason=str(error))
            raise
        print(f"{run.path} is job {number}")
    return 0


def evaluate(runs: list[str], overrides: list[str]) -> int:
    """Test runs once more, with other values under data or trainer."""
    with importing():
        from recurlab.results.runs import evaluate

    for run in runs:
        if len(runs) > 1:
            print(run)
        for name, value in evaluate(run, overrides).items():
            print(f"{name} {value:.6g}")
    return 0


def report(runs: list[str]) -> int:
    """Write a page for each run."""
    from recurlab.results.report import write_report

    for run in runs:
        print(write_report(run))
    return 0


def generate(runs: list[str], prompt: str, options: dict[str, Any]) -> int:
    """Let the language model of a run write."""
    from recurlab.results.generate import TextModel
    from recurlab.results.sampling import Sampling

    if len(runs) != 1:
        raise RecurlabError(f"run={' '.join(runs)!r}: generate takes one run")
    written = TextModel(runs[0]).write(prompt, Sampling(**options))
    last = ""
    for piece in written:
        print(piece, end="", flush=True)
        last = piece or last
    print("" if last.endswith("\n") else "\n", end="")
    return 0


def import_plugins(overrides: list[str]) -> None:
    """Import the modules of a run with a user's code, of which nothing is loaded unasked."""
    from omegaconf import OmegaConf

    from recurlab.plugins import import_plugins

    for override in overrides:
        try:
            names = OmegaConf.from_dotlist([override]).get("plugins")
        except Exception:  # a YAML parser's errors are of many kinds
            names = None
        if not override.startswith("plugins=") or not isinstance(names, Sequence) or isinstance(names, str):
            raise RecurlabError(f"{override!r}: only plugins=[...] can be set here")
        import_plugins(names)


def explain(overrides: list[str], source: bool) -> int:
    """Print the model and its backends, with `source` the generated kernels."""
    from recurlab.compose import compose

    config, _ = compose(overrides)
    from recurlab.results.summary import model_explanation
    from recurlab.training.build import build_problem

    print(model_explanation(build_problem(config).model, source))
    return 0


def convert(options: dict[str, Any], rest: Sequence[str]) -> int:
    """Convert a file of weights."""
    for word in rest:
        raise RecurlabError(f"{word!r}: unknown word; see recurlab convert --help")
    from recurlab.interop import convert

    print(convert(**{key: value for key, value in options.items() if key != "command"}))
    return 0


def export(words: list[str], inputs: str, overrides: list[str]) -> int:
    """Write the model of a run as a graph, to the file that is the second of two words."""
    from recurlab.deploy import MODEL_INPUTS, check_graph_file, check_inputs
    from recurlab.training.run_dir import RunDir

    if len(words) != 2:
        raise RecurlabError(f"{' '.join(words)!r}: export takes a run's directory and a file")
    path, file = words
    check_graph_file(file)
    names = check_inputs([name for name in inputs.split(",") if name], MODEL_INPUTS)
    RunDir.open(path)
    import_plugins(overrides)
    from recurlab.deploy.export import export
    from recurlab.results.runs import load_run

    print(export(load_run(path), file, names))
    return 0


def bench(words: list[str]) -> int:
    """Measure speed."""
    from recurlab.bench.settings import parse_bench

    settings = parse_bench(words)
    from recurlab.bench.run import run_bench

    return run_bench(settings)


def sweep(words: list[str]) -> int:
    """Search for good values of a config's keys, or report such searches."""
    if words[:1] == ["report"]:
        from recurlab.sweep.results import report_of

        if len(words) == 1:
            raise RecurlabError("sweep report: needs the sweeps' folders, or files of SQLite")
        for path in words[1:]:
            print(report_of(path))
        return 0
    from recurlab.sweep.run import run_sweep

    with resumable():
        print(run_sweep(words))
    return 0


@contextmanager
def resumable() -> Iterator[None]:
    """Say of what is told to end that the same command goes on with it."""
    try:
        yield
    except Preempted as stop:
        stop.hint = "the same command goes on"
        raise
