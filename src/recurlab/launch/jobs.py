"""Jobs of a grid, a sweep or a study, each in a fresh process of this machine.

A job's run directory follows from its config: one that has finished is not run again, one that was
stopped continues.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from recurlab.config import Config
from recurlab.errors import RecurlabError
from recurlab.launch import fresh
from recurlab.launch.fresh import Ask
from recurlab.training.job import Identity
from recurlab.training.resume import compose_train
from recurlab.training.signals import HEARD
from recurlab.training.silence import Silence

LOOK = 0.2  # seconds between two checks whether a job is to end
TRIES = 5  # of a job whose process is lost with the forkserver
PAUSE = 0.1  # seconds between them
LOST = 255  # exit code of a process whose end nobody saw, since the forkserver is gone
ENDED = tuple(-number for number in HEARD)  # exit codes by signals that came before their handlers


@dataclass(frozen=True)
class Job:
    """One run, as the words of a command line say it.

    Attributes:
        words: arguments of ``recurlab train``.
        config, resolved: composed from them.
        identity: distinguishes the job from others.
    """

    words: tuple[str, ...]
    config: Config
    resolved: DictConfig
    identity: Identity

    @property
    def name(self) -> str:
        """Name of its run directory."""
        return self.identity.name

    @classmethod
    def of(cls, words: Sequence[str]) -> "Job":
        """Return the job of a command line; ``resume`` is ``auto`` unless it is given.

        Raises:
            RecurlabError: as `recurlab.compose.compose`.
        """
        given = any(word.partition("=")[0] == "resume" for word in words)
        words = (*words, *(() if given else ("resume=auto",)))
        config, resolved = compose_train(list(words))
        return cls(words, config, resolved, Identity.of(config, resolved))


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        state: finished, pruned, preempted or failed; of `recurlab.launch.queue.take_job` also busy.
        path: of the run directory, where there is one.
        reason: why it did not finish.
    """

    state: str
    path: Path | None = None
    reason: str = ""


def run_job(
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
        ask: called with the step and the metric of each validation; returns whether to prune.
        threads: of the process; 0 leaves the number to torch.
        quiet: whether its output is discarded.
        told: called now and then; returns whether the job is to save and end.

    Raises:
        RecurlabError: if no process can be started.
    """
    for _ in range(TRIES):  # each resumes what the one before has saved
        outcome = _run(job, ask, threads, quiet, told)
        if outcome.state != "lost":
            return outcome
        if told():
            return outcome._replace(state="preempted")
    return outcome._replace(state="failed")


def _run(job: Job, ask: Ask | None, threads: int, quiet: bool, told: Callable[[], bool]) -> Outcome:
    """Run a job once; the state "lost" means that nobody saw its process end."""
    process, ours, life = _start(fresh.job_main, _plain(job), dict(os.environ), threads, quiet, ask is not None)
    try:
        outcome = _listen(ours, job, ask, process, told)
    finally:
        life.close()
        process.join(fresh.GRACE)
        process.kill()
        process.join()
        ours.close()
    if outcome is not None:
        return outcome
    reason = f"its process ended with code {process.exitcode}"
    if process.exitcode in ENDED:
        return Outcome("preempted", None, reason)
    if process.exitcode == LOST:
        return Outcome("lost", None, f"{reason} {TRIES} times, as where the one that it comes from is killed")
    hint = ", as of one that takes more memory than there is" if process.exitcode == -signal.SIGKILL else ""
    return Outcome("failed", None, f"{reason}{hint}")


def _start(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection, Connection]:
    """Start a process; return it and our ends of two pipes. It is given the other ends first.

    Raises:
        RecurlabError: if the forkserver is killed again and again.
    """
    for left in range(TRIES - 1, -1, -1):
        (ours, theirs), (life, their_life) = _context().Pipe(), _context().Pipe()
        process = _context().Process(target=target, args=(theirs, their_life, *arguments))
        try:
            process.start()
            return process, ours, life
        except (EOFError, ConnectionError, FileNotFoundError) as error:  # the forkserver was killed
            ours.close()
            life.close()
            if not left:
                raise RecurlabError(f"no process can be started: what they come from ended {TRIES} times") from error
            time.sleep(PAUSE)
        finally:
            theirs.close()
            their_life.close()
    raise AssertionError


def _plain(job: Job) -> dict[Any, Any]:
    """Return the config of a job as it is handed to another process."""
    values = OmegaConf.to_container(job.resolved)
    assert isinstance(values, dict)
    return values


def _context() -> ForkServerContext:
    """Return a forkserver context; its server imports torch and Lightning once for all."""
    context = get_context("forkserver")
    context.set_forkserver_preload([fresh.__name__, "recurlab.training.run", "recurlab.results.figures"])
    return context


def check_jobs(jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """Build the model of each job, so that a mistake is found before the first one runs.

    Returns:
        For each job the metric of its validations, and "min" or "max": which values are better.

    Raises:
        RecurlabError: for options that do not go together, or data that can't be read.
    """
    for _ in range(TRIES):
        process, ours, life = _start(fresh.check_main, [_plain(job) for job in jobs])
        try:
            reason, metrics = ours.recv()
        except EOFError:
            process.join(fresh.GRACE)
            above = process.exitcode == 1  # of an exception that nothing caught
            how = "for the reason above" if above else f"their process ended with code {process.exitcode}"
            reason, metrics = f"the models could not be built, {how}", []
        finally:
            life.close()
            ours.close()
            process.kill()
            process.join()
        if process.exitcode != LOST or metrics:
            break
    if reason:
        raise RecurlabError(reason)
    return list(metrics)


def _listen(
    connection: Connection, job: Job, ask: Ask | None, process: BaseProcess, told: Callable[[], bool]
) -> Outcome | None:
    """Answer a job's process until it says how it has ended; None if it ends without a word."""
    patience = job.config.trainer.stall_timeout
    silence, since = Silence(patience), None
    who = f"{job.config.experiment}/{job.name} has"
    try:
        while True:
            while not connection.poll(LOOK):
                silence.tell(who)
                if told():
                    if since is None:
                        _tell(process)
                        since = time.monotonic()
                    # A run of several processes ends a hanging one itself, after its own patience.
                    if silence.seconds > patience + fresh.GRACE and time.monotonic() - since > fresh.GRACE:
                        _tell(process, signal.SIGKILL)
                        return Outcome("preempted", None, f"{who} made no step for {silence.seconds:.0f} s")
            kind, *content = connection.recv()
            silence.heard()
            if kind == "ended":
                state, path, reason = content
                return Outcome(state, Path(path) if path else None, reason)
            if kind == "validated":
                connection.send(ask is not None and ask(*content))
    except (EOFError, ConnectionError):
        return None


def _tell(process: BaseProcess, number: int = signal.SIGTERM) -> None:
    """Tell a job to save and end, even if multiprocessing no longer knows its process."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
