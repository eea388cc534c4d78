"""Which of a study's trials count, how they stand, and what is to be done next."""

from dataclasses import dataclass
from enum import Enum

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from recurlab.sweep.space import Value

WORKER, SURPLUS, REASON, RUN, STEPS = "worker", "surplus", "reason", "run", "steps"  # attributes of a trial
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Next(Enum):
    """What a worker does: begin a trial, wait for those of others, or end, all being done."""

    BEGIN = "begin"
    WAIT = "wait"
    END = "end"


@dataclass(frozen=True)
class Slot:
    """One of the trials that a sweep is to finish; where a worker died, the last attempt at it.

    Attributes:
        number: of the first attempt.
        trial: the last one.
    """

    number: int
    trial: FrozenTrial

    @property
    def state(self) -> str:
        """How it has ended: finished, pruned or failed; running or waiting."""
        return STATES.get(self.trial.state, self.trial.state.name.lower())

    @property
    def reason(self) -> str:
        """Why it has failed."""
        given = str(self.trial.user_attrs.get(REASON, ""))
        return given or ("its worker died, as did all that took it up again" if self.lost else "")

    @property
    def lost(self) -> bool:
        """Whether it has failed by no fault of its own: no worker has come to its end."""
        return self.state == "failed" and not self.trial.user_attrs.get(REASON)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.trial.state.is_finished()


def attempts(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the trials that this one takes up again, the first one first."""
    return list(RetryHeartbeatStaleTrialCallback.retry_history(trial))


def slots(study: Study) -> list[Slot]:
    """Return the trials that count, in the order in which they were begun."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get(SURPLUS)]
    replaced = {number for trial in trials for number in attempts(trial)}
    found = [Slot((attempts(trial) or [trial.number])[0], trial) for trial in trials if trial.number not in replaced]
    return sorted(found, key=lambda slot: slot.number)


def decide(known: list[Slot], count: int) -> Next:
    """Return what is next where `count` trials are to finish."""
    chosen = known[:count]
    if len(chosen) < count or any(slot.trial.state == TrialState.WAITING for slot in chosen):
        return Next.BEGIN
    return Next.END if all(slot.over for slot in chosen) else Next.WAIT


def surplus(known: list[Slot], number: int, count: int) -> bool:
    """Return whether a new trial is one too many, as several workers began the last one at once."""
    return sum(slot.number < number for slot in known) >= count


def position_of(study: Study, number: int) -> int:
    """Return the position of a trial among those that take up no other one."""
    return sum(slot.number < number for slot in slots(study))


@dataclass(frozen=True)
class Row:
    """How a trial has ended; `seconds` are those of the last attempt at it."""

    number: int
    state: str
    value: float | None
    parameters: dict[str, Value]
    seconds: float
    run: str
    reason: str


def rows(study: Study, count: int | None = None) -> list[Row]:
    """Return the trials that have ended, of the first `count` ones."""
    found = []
    for slot in slots(study)[:count]:
        trial = slot.trial
        if not slot.over:
            continue
        seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
        run = str(trial.user_attrs.get(RUN, ""))
        value = None if slot.state == "failed" else trial.value
        chosen = {key: _clean(drawn, trial.distributions[key]) for key, drawn in trial.params.items()}
        found.append(Row(slot.number, slot.state, value, chosen, seconds, run, slot.reason))
    return found


def _clean(value: Value, distribution: BaseDistribution) -> Value:
    """Return a value as the run was given it."""
    stepped = isinstance(distribution, FloatDistribution) and distribution.step is not None
    return float(f"{value:.12g}") if stepped else value


def short_value(value: Value) -> str:
    """Return a value for the screen."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
