"""Jobs of a grid, a sweep or a study, each in a fresh process of this machine.

A job's run directory follows from its config: one that has finished is not run again, one that was stopped continues.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from recurlab.config import Config
from recurlab.errors import Preempted, RecurlabError
from recurlab.launch import fresh
from recurlab.launch.fresh import Ask
from recurlab.training.job import digest
from recurlab.training.resume import compose_train

LOOK = 0.2  # seconds between two looks at whether a job is to end
_running: set[BaseProcess] = set()


@dataclass(frozen=True)
class Job:
    """One run, as the words of a command line say it.

    Attributes:
        words: of ``recurlab train``.
        config, resolved: what they make.
        name: of the job, which its run directory is called by.
    """

    words: tuple[str, ...]
    config: Config
    resolved: DictConfig
    name: str

    @classmethod
    def of(cls, words: Sequence[str]) -> "Job":
        """Return the job for some words; where they do not say what to resume, it is ``auto``.

        Raises:
            RecurlabError: as `recurlab.compose.compose`.
        """
        given = any(word.partition("=")[0] == "resume" for word in words)
        words = (*words, *(() if given else ("resume=auto",)))
        config, resolved = compose_train(list(words))
        return cls(words, config, resolved, digest(resolved))


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        state: finished, pruned, preempted or failed.
        path: of the run directory, where there is one.
        reason: why it did not finish.
    """

    state: str
    path: Path | None = None
    reason: str = ""


def run(
    job: Job,
    ask: Ask | None = None,
    *,
    threads: int = 0,
    quiet: bool = False,
    told: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a job in a fresh process, which ends with this one.

    Args:
        job: what to run.
        ask: is given the optimiser's steps and the metric of each validation, and says whether to prune the run.
        threads: of the process; 0 leaves it to torch.
        quiet: whether nothing is to be shown.
        told: says, asked now and again, whether the job is to save and end.
    """
    context = _context()
    ours, theirs = context.Pipe()
    life, their_life = context.Pipe()
    arguments = (theirs, their_life, _plain(job), dict(os.environ), threads, quiet, ask is not None)
    process = context.Process(target=fresh.main, args=arguments)
    process.start()
    theirs.close()
    their_life.close()
    _running.add(process)
    try:
        outcome = _listen(ours, ask, process, told)
    finally:
        life.close()
        process.join(fresh.GRACE)
        process.kill()
        process.join()
        _running.discard(process)
        ours.close()
    if outcome is None:
        hint = ", as of one that takes more memory than there is" if process.exitcode == -9 else ""
        return Outcome("failed", None, f"its process ended with code {process.exitcode}{hint}")
    return outcome


def _plain(job: Job) -> dict[Any, Any]:
    """Return the config of a job as it is handed to another process."""
    values = OmegaConf.to_container(job.resolved)
    assert isinstance(values, dict)
    return values


def _context() -> ForkServerContext:
    """Return what makes processes: by one that has imported torch and Lightning, from which the others come."""
    context = get_context("forkserver")
    context.set_forkserver_preload([fresh.__name__, "recurlab.training.run", "recurlab.results.figures"])
    return context


def check(jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """Build the model of each job, so that a mistake is found before the first one runs.

    Returns:
        What the validations of each are judged by: the metric, and "min" or "max" for which values are better.

    Raises:
        RecurlabError: for options that do not go together, or data that can't be read.
    """
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=fresh.check, args=(theirs, [_plain(job) for job in jobs]), daemon=True)
    process.start()
    theirs.close()
    metrics: list[tuple[str, str]] = []
    try:
        reason, metrics = ours.recv()
    except EOFError:
        reason = "the models could not be built, for the reason above"
    finally:
        ours.close()
        process.kill()
        process.join()
    if reason:
        raise RecurlabError(reason)
    return metrics


def _listen(connection: Connection, ask: Ask | None, process: BaseProcess, told: Callable[[], bool]) -> Outcome | None:
    """Answer a job's process until it says how it has ended; None if it ends without a word."""
    passed_on = False
    try:
        while True:
            while not connection.poll(LOOK):
                if not passed_on and told():
                    process.terminate()
                    passed_on = True
            kind, *content = connection.recv()
            if kind == "ended":
                state, path, reason = content
                return Outcome(state, Path(path) if path else None, reason)
            connection.send(ask is not None and ask(*content))
    except (EOFError, ConnectionError):
        return None


def run_all(jobs: Sequence[Job], at_once: int, quiet: bool = False) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs, `at_once` of them side by side, which share the processor's threads; give each when it ends.

    Raises:
        Preempted: if one of them was told to end; so are all, then.
    """
    threads = 0 if at_once == 1 else max(1, (os.cpu_count() or 1) // at_once)
    with ThreadPoolExecutor(at_once) as pool:
        waiting: dict[Future[Outcome], Job] = {}
        for job in {job.name: job for job in jobs}.values():  # the same job twice would wait for itself
            waiting[pool.submit(run, job, threads=threads, quiet=quiet or at_once > 1)] = job
        try:
            while waiting:
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job, outcome = waiting.pop(done), done.result()
                    if outcome.state == "preempted":
                        raise Preempted(15, "with all that was done kept")
                    yield job, outcome
        except BaseException:
            for future in waiting:
                future.cancel()
            for process in tuple(_running):
                process.terminate()
            raise
