"""A worker: begins trials of a study, each in a fresh process, until enough have ended."""

import os
import socket
import time
from contextlib import suppress
from typing import Any, NoReturn

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import Trial, TrialState

from recurlab.errors import Ending, RecurlabError, one_line
from recurlab.launch.jobs import Outcome
from recurlab.launch.queue import run_of, take_job
from recurlab.results.records import Result
from recurlab.sweep.patience import FAILURES, PatientStorage
from recurlab.sweep.plan import SweepPlan
from recurlab.sweep.samplers import PRUNERS, TrialSampler, suggest_value
from recurlab.sweep.store import FACTS, Lock
from recurlab.sweep.trials import (
    REASON,
    RUN,
    STEPS,
    SURPLUS,
    WORKER,
    Next,
    attempts,
    decide,
    position_of,
    short_value,
    slots,
    surplus,
)
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals

POLL = 1.0  # seconds between two checks of the others' trials


class _Failed(Ending):
    """A trial has no result; this is recorded as its end."""


class _Left(BaseException):
    """A trial has not ended: another worker takes it up.

    Not an Exception, on which Optuna would record the trial as ended.
    """


class Worker:
    """Works on a study.

    Args:
        plan: what is searched.
        study: that keeps the trials.
        storage, lock: of the study.
        signals: that may tell this process to end.
        threads: of each trial; 0 leaves them to torch.
    """

    def __init__(
        self,
        plan: SweepPlan,
        study: optuna.Study,
        storage: PatientStorage,
        lock: Lock,
        signals: Signals,
        threads: int = 0,
    ) -> None:
        self._plan, self._study, self._storage, self._lock = plan, study, storage, lock
        self._signals, self._threads = signals, threads
        self._metric = str(study.user_attrs[FACTS]["metric"])
        self._helped: set[int] = set()
        self._line = ""
        settings = plan.settings
        study.sampler = TrialSampler(
            settings.sampler, settings.seed, plan.space, lambda number: position_of(study, number)
        )
        study.pruner = PRUNERS[settings.pruner]()

    def _told(self) -> bool:
        return bool(self._signals.received)

    def work(self) -> None:
        """Begin trials until enough have ended, or this process is told to end.

        Raises:
            SQLAlchemyError, StorageInternalError: if the database fails.
            RecurlabError: if no process can be started; the trial is left to another worker.
        """
        while not self._told():
            try:
                with self._lock:  # released as soon as a trial has begun
                    what = self._next()
                    if what is Next.BEGIN:
                        self._begin()
            except FAILURES:
                if self._told():
                    return
                raise
            if what is Next.END:
                return
            if what is Next.WAIT:
                time.sleep(POLL)

    def _next(self) -> Next:
        fail_stale_trials(self._study)
        known = slots(self._study)
        for trial in (slot.trial for slot in known):
            # A worker that died as it began has left no heartbeat that could become stale.
            held = str(trial.user_attrs.get(WORKER)).endswith(f" {trial.number}")
            if trial.state == TrialState.RUNNING and not held and trial.number not in self._helped:
                self._storage.record_heartbeat(trial._trial_id)
                self._helped.add(trial.number)
        return decide(known, self._plan.count)

    def _begin(self) -> None:
        """Run a trial from its beginning to its end, while Optuna sends its heartbeats."""
        self._line = ""
        try:
            self._study.optimize(self._objective, n_trials=1, catch=(_Failed,))
        except (_Left, UpdateFinishedTrialError) as left:
            if isinstance(left.__cause__, Exception):
                raise left.__cause__ from None
            self._line = f"{self._line}: {left}"
        except ValueError as error:  # as Optuna says it
            if not str(error).startswith("Cannot tell"):
                raise
            self._line = f"{self._line}: is another worker's, after a silence of this one"
        if self._line:
            over = sum(slot.over for slot in slots(self._study)[: self._plan.count])
            print(f"[{over}/{self._plan.count}] {self._line}", flush=True)

    def _objective(self, trial: Trial) -> float:
        try:
            self._storage.record_heartbeat(trial._trial_id)
            before = attempts(self._storage.get_trial(trial._trial_id))
            number = (before or [trial.number])[0]
            new = WORKER not in trial.user_attrs and not before
            if new and surplus(slots(self._study), number, self._plan.count):
                trial.set_user_attr(SURPLUS, True)
                raise _Failed
            trial.set_user_attr(WORKER, f"{socket.gethostname()} {os.getpid()} {trial.number}")
            values = [suggest_value(trial, parameter) for parameter in self._plan.space]
            self._lock.release()
            chosen = " ".join(
                f"{p.key}={short_value(value)}" for p, value in zip(self._plan.space, values, strict=True)
            )
            self._line = f"trial {number}: {chosen}"
            start = time.monotonic()
            outcome = self._outcome(trial, values)
            if outcome.path is not None:
                trial.set_user_attr(RUN, str(outcome.path))
            return self._judge(trial, outcome, time.monotonic() - start)
        except (_Failed, optuna.TrialPruned):
            raise
        except UpdateFinishedTrialError:
            raise _Left("is another worker's, after a silence of this one") from None
        except FAILURES as error:
            raise _Left from error
        except KeyboardInterrupt:
            self._leave(trial)
        except Exception as error:  # of this worker, not of the trial
            self._leave(trial, error)

    def _leave(self, trial: Trial, error: Exception | None = None) -> NoReturn:
        """Leave a trial to the next worker; after an error, which ends this one, to another."""
        with suppress(*FAILURES):  # then it is found by its missing heartbeats
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        raise _Left("is kept, and goes on when a worker takes it up") from error

    def _outcome(self, trial: Trial, values: list[Any]) -> Outcome:
        """Run a trial, once no other process is training the same run."""
        try:
            job = self._plan.job(values)
        except RecurlabError as error:
            return Outcome("failed", None, one_line(error))

        def ask(step: int, value: float) -> bool:
            steps = trial.user_attrs.get(STEPS, [])
            if step not in steps:  # a resumed run validates some steps again
                trial.set_user_attr(STEPS, [*steps, step])
                trial.report(value, len(steps) + 1)
            return trial.should_prune()

        listen = ask if self._plan.settings.pruner != "none" else None
        while not self._told():
            outcome = take_job(job, ask=listen, threads=self._threads, quiet=True, told=self._told)
            if outcome.state == "busy":
                continue
            found = run_of(job)  # a killed run could not report its directory
            return outcome if found is None else outcome._replace(path=outcome.path or found.path)
        return Outcome("preempted")

    def _judge(self, trial: Trial, outcome: Outcome, seconds: float) -> float:
        """Return a trial's value, or raise how it has ended."""
        if outcome.state == "preempted" or (outcome.state == "failed" and self._told()):
            self._leave(trial)
        if outcome.state == "pruned":
            self._line = f"{self._line}: pruned ({seconds:.1f} s)"
            raise optuna.TrialPruned(outcome.reason)
        reason, value = outcome.reason, None
        if outcome.state == "finished" and outcome.path is not None:
            reason = f"it has no {self._metric}: it ended before the first validation"
            try:
                value = Result.read(RunDir.open(outcome.path)).metrics.get(self._metric)
            except RecurlabError as error:
                reason = one_line(error)
        if value is None:
            trial.set_user_attr(REASON, reason)
            self._line = f"{self._line}: failed: {reason}"
            raise _Failed(reason)
        self._line = f"{self._line}: {self._metric} {value:.6g} ({seconds:.1f} s)"
        return value
