"""Running several jobs, side by side or in turn, while other processes may run the same."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from recurlab.errors import Preempted, RecurlabError
from recurlab.launch.jobs import Job, Outcome, run_job
from recurlab.training.resume import find_run
from recurlab.training.run_dir import PATIENCE, RunDir
from recurlab.training.signals import Signals


def run_of(job: Job) -> RunDir | None:
    """Return the run of a job, None where there is none yet."""
    return find_run(job.config, job.identity)


def is_free(run: RunDir | None, patience: float = PATIENCE) -> bool:
    """Return whether no other process is training a run, waiting `patience` seconds for its end."""
    if run is None:
        return True
    try:
        with run.held(patience):
            return True
    except RecurlabError:
        return False


def take_job(job: Job, begun: Callable[[Job], None] = lambda job: None, **options: Any) -> Outcome:
    """Run a job as `recurlab.launch.jobs.run_job` does, unless another process has its run in hand.

    Args:
        job: what to run.
        begun: called with the job when it begins.
        options: of `recurlab.launch.jobs.run_job`.

    Returns:
        The outcome; its state is busy if another process is training the run.
    """
    run = run_of(job)
    if not is_free(run):
        return Outcome("busy")
    was_over = _is_over(run)
    begun(job)
    outcome = run_job(job, **options)
    if outcome.state == "failed":
        run = run_of(job)
        if not is_free(run) or (_is_over(run) and not was_over):
            return Outcome("busy")  # another process began it in the meantime, and may have finished it
    return outcome


def _is_over(run: RunDir | None) -> bool:
    return run is not None and run.state == "finished"


def run_all(
    jobs: Sequence[Job],
    at_once: int,
    quiet: bool = False,
    threads: int | None = None,
    begun: Callable[[Job], None] = lambda job: None,
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs in order, `at_once` side by side, and yield each when it ends.

    A job whose run another process is training comes last, when that process has ended.

    Args:
        jobs: what to run.
        at_once: how many run side by side.
        quiet: whether their output is discarded.
        threads: of each; None divides the processor's among them.
        begun: called with each job when it begins, in another thread.

    Raises:
        Preempted, KeyboardInterrupt: if this process, or one of them, was told to end; so are all,
            then.
    """
    if threads is None:
        threads = 0 if at_once == 1 else max(1, (os.cpu_count() or 1) // at_once)
    ended = threading.Event()
    with Signals() as signals, ThreadPoolExecutor(at_once) as pool:

        def told() -> bool:
            return ended.is_set() or bool(signals.received)

        def start(job: Job) -> Outcome:
            if told():
                return Outcome("preempted")
            return take_job(job, begun, threads=threads, quiet=quiet or at_once > 1, told=told)

        # The same job twice would wait for itself.
        waiting = {pool.submit(start, job): job for job in {job.name: job for job in jobs}.values()}
        try:
            while waiting:
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job, outcome = waiting.pop(done), done.result()
                    if outcome.state == "preempted" and signals.received == signal.SIGINT:
                        raise KeyboardInterrupt("with all that was done kept")
                    if outcome.state == "preempted":
                        raise Preempted(signals.received or signal.SIGTERM, "with all that was done kept")
                    if outcome.state == "busy":
                        waiting[pool.submit(start, job)] = job
                    else:
                        yield job, outcome
        except BaseException:
            for future in waiting:
                future.cancel()
            ended.set()
            raise
