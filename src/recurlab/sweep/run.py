"""A sweep from its command: the study, the workers, the report."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import optuna

from recurlab.errors import Preempted, RecurlabError, say
from recurlab.launch.launchers import Local, Slurm
from recurlab.parents import end_with
from recurlab.process import prepare_process
from recurlab.sweep.patience import PatientStorage
from recurlab.sweep.plan import SweepPlan
from recurlab.sweep.results import report_study
from recurlab.sweep.store import Store, quiet_optuna, sqlite
from recurlab.sweep.trials import Next, decide, slots
from recurlab.sweep.worker import Worker
from recurlab.training.signals import Signals, requeue

# A process's main module that has nothing to import again in the processes that it starts.
WORKER = "import sys; from recurlab.sweep.run import run_worker; sys.exit(run_worker(sys.argv[1:]))"


def run_sweep(words: Sequence[str]) -> str:
    """Run what is left of a sweep, beside the workers that do, and return the report.

    Args:
        words: arguments of the command line.

    Raises:
        RecurlabError: before anything is written, for words that make no sweep; later if the
            database fails, no trial comes to a result, or one is lost with its workers.
        Preempted: if the process is told to end; the same command goes on.
    """
    plan = SweepPlan.of(words)
    with _study(plan) as (store, storage, study):
        launcher = plan.base.config.launcher
        if decide(slots(study), plan.count) is not Next.END:
            if isinstance(launcher, Slurm):
                return _submit(plan, launcher, words)
            assert isinstance(launcher, Local)
            with Signals() as signals:
                store.patience.told = lambda: bool(signals.received)
                if plan.settings.workers == 1:
                    Worker(plan, study, storage, store.lock, signals).work()
                else:
                    _start(words, plan.settings.workers, signals)
            _check_end(plan, study, signals)
        found = report_study(study, plan.folder, plan.count)
        lost = [slot for slot in slots(study)[: plan.count] if slot.lost]
        if lost:
            print(found)
            raise RecurlabError(f"trial {lost[0].number}: {lost[0].reason}")
        return found


def run_worker(words: Sequence[str]) -> int:
    """Work on a sweep of this machine for as long as the process lives that started this one."""
    prepare_process()
    end_with(0, grace=None)  # the trial in hand is saved first, which takes as long as its step
    try:
        with Signals() as signals:
            plan = SweepPlan.of(words)
            threads = max(1, (os.cpu_count() or 1) // plan.settings.workers)
            with _study(plan, lambda: bool(signals.received)) as (store, storage, study):
                Worker(plan, study, storage, store.lock, signals, threads).work()
    except RecurlabError as error:
        say(error)
        return 2
    return 128 + signals.received if signals.received else 0


@contextmanager
def _study(
    plan: SweepPlan, told: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Store, PatientStorage, optuna.Study]]:
    """Open the study of a sweep, created if it is missing; `told` ends the wait for a database."""
    settings = plan.settings
    store = Store(settings.storage or sqlite(plan.folder / "sweep.db"), settings.heartbeat, settings.retries)
    store.patience.told = told
    # Looked up before there is a file, so that a mistake which is found in it leaves none behind.
    judged = plan.judged if store.file is not None and not store.file.exists() else None
    with quiet_optuna(), store.open() as storage:
        yield store, storage, store.join(storage, plan.name, plan.facts, lambda: judged or plan.judged)


def _start(words: Sequence[str], count: int, signals: Signals) -> None:
    """Start workers and wait for them; report each one that is lost."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *words],
            stdin=subprocess.PIPE,  # is closed when this process is gone, which ends a worker
            start_new_session=True,  # an interrupt of the terminal comes to this process alone, which passes it on
        )
        for _ in range(count)
    ]
    passed_on = False
    waiting = list(started)
    try:
        while waiting:
            if signals.received and not passed_on:
                passed_on = True
                for worker in waiting:
                    worker.terminate()
            for worker in [worker for worker in waiting if worker.poll() is not None]:
                waiting.remove(worker)
                if worker.returncode not in (0, 2) and not passed_on:  # 2: it has said why
                    say(f"a worker ended with code {worker.returncode}")
            time.sleep(0.1)
    finally:
        for worker in started:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            if worker.stdin is not None:
                worker.stdin.close()


def _check_end(plan: SweepPlan, study: optuna.Study, signals: Signals) -> None:
    """Raise if the workers have ended before the sweep."""
    if signals.received:
        requeue(signals.received)
        raise Preempted(signals.received, "with all trials kept")
    known = slots(study)[: plan.count]
    over = sum(slot.over for slot in known)
    if over < plan.count:
        raise RecurlabError(f"all workers have ended after {over} of {plan.count} trials; the same command goes on")


def _submit(plan: SweepPlan, launcher: Slurm, words: Sequence[str]) -> str:
    """Hand each worker to Slurm as a job."""
    from recurlab.launch.slurm import recurlab, submit_command

    command = recurlab("sweep", *words, "launcher=local", "sweep.workers=1")
    jobs = [
        submit_command(command, plan.folder.absolute() / "slurm", launcher, f"sweep/{plan.name}")
        for _ in range(plan.settings.workers)
    ]
    return f"{plan.folder}: workers are the jobs {', '.join(jobs)}"
