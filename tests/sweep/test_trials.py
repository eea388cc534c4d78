"""What counts among a study's trials, and what is next."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState, create_trial

from recurlab.sweep.trials import SURPLUS, Next, decide, position_of, slots, surplus

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def study_of(*states, **attributes):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for state in states:
        x = {"params": {"x": 0.5}, "distributions": {"x": FloatDistribution(0, 1)}}
        value = 1.0 if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, user_attrs=attributes, **x))
    return study


def take_up_again(study, number):
    study.tell(number, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(study, study.trials[number])


DONE, RUNS, FAILED, WAITS = TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ([], Next.BEGIN),
        ([DONE, RUNS], Next.BEGIN),
        ([DONE, RUNS, RUNS], Next.WAIT),
        ([DONE, FAILED, TrialState.PRUNED], Next.END),
        ([DONE, WAITS, RUNS], Next.BEGIN),
        ([DONE, DONE, DONE, WAITS], Next.END),
    ],
)
def test_what_is_next_of_three(states, wanted):
    assert decide(slots(study_of(*states)), 3) is wanted


def test_a_trial_that_is_taken_up_again_counts_once_in_its_old_place():
    study = study_of(DONE, RUNS, DONE)
    take_up_again(study, 1)
    study.ask()
    assert [(slot.number, slot.trial.number, slot.state) for slot in slots(study)] == [
        (0, 0, "finished"), (1, 3, "running"), (2, 2, "finished"),
    ]  # fmt: skip
    assert decide(slots(study), 3) is Next.WAIT
    assert not surplus(slots(study), 1, 3)
    take_up_again(study, 3)
    assert [(slot.number, slot.trial.number) for slot in slots(study)] == [(0, 0), (1, 4), (2, 2)]
    assert position_of(study, 2) == 2


def test_of_two_that_begin_the_last_trial_the_later_one_backs_off():
    study = study_of(DONE, DONE)
    first, second = study.ask(), study.ask()
    assert not surplus(slots(study), first.number, 3)
    assert surplus(slots(study), second.number, 3)
    second.set_user_attr(SURPLUS, True)
    study.tell(second, state=TrialState.FAIL)
    assert [slot.number for slot in slots(study)] == [0, 1, 2]
    third = study.ask()
    assert position_of(study, third.number) == 3, "as if the surplus one had not been"
