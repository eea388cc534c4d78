"""A database that is away for a while, or for too long."""

import sqlite3

import optuna
import pytest
from optuna.storages import fail_stale_trials
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from recurlab.errors import RecurlabError
from recurlab.sweep import patience

pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning"),
]


class Outage:
    """Makes the next statements of an engine fail, as where a server is stopped."""

    def __init__(self, engine):
        self.statements = 0
        self.error = OperationalError("select", {}, sqlite3.OperationalError("the server\nis stopped"))
        event.listen(engine, "before_cursor_execute", self.meet)

    def meet(self, connection, cursor, statement, parameters, context, executemany):
        if self.statements:
            self.statements -= 1
            raise self.error


@pytest.fixture(scope="module")
def outage(opened):
    return Outage(opened[1].engine)


@pytest.fixture(autouse=True)
def _quick(opened, outage, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(opened[0].patience, "told", lambda: False)
    yield
    outage.statements = 0
    opened[1].get_all_studies()  # it is back


@pytest.fixture
def store(opened):
    return opened[0]


@pytest.fixture
def storage(opened):
    return opened[1]


def test_each_call_of_a_study_waits_and_the_first_one_says_so(store, storage, outage, capfd):
    failures = 0

    def after_an_outage(call):
        nonlocal failures
        outage.statements, failures = 2, failures + 1
        found = call()
        assert outage.statements == 0, "each of these asks the database"
        return found

    study = after_an_outage(lambda: optuna.create_study(storage=storage, study_name="one"))
    after_an_outage(lambda: study.set_user_attr("key", 1))
    assert after_an_outage(lambda: study.user_attrs) == {"key": 1}
    trial = after_an_outage(study.ask)
    x = after_an_outage(lambda: trial.suggest_float("x", 0, 1))
    after_an_outage(lambda: trial.set_user_attr("run", "here"))
    after_an_outage(lambda: trial.report(0.5, 1))
    after_an_outage(lambda: storage.record_heartbeat(trial._trial_id))
    after_an_outage(lambda: study.tell(trial, 2.0))
    assert "one" in after_an_outage(lambda: store.names(storage))
    (found,) = after_an_outage(lambda: optuna.load_study(study_name="one", storage=storage)).trials
    assert (found.state, found.value, found.params, found.intermediate_values) == (
        TrialState.COMPLETE, 2.0, {"x": x}, {1: 0.5},
    )  # fmt: skip
    line = f"recurlab: sweep.storage='{store.file}': is away: the server is stopped; waiting up to 300 s for it\n"
    assert capfd.readouterr().err == line * failures


def test_what_is_away_for_too_long_ends_the_sweep_in_one_line(store, storage, outage, monkeypatch, capfd):
    monkeypatch.setattr(patience, "LIMIT", 0.05)
    optuna.create_study(storage=storage, study_name="two")
    outage.statements = 10**6
    with pytest.raises(RecurlabError, match=r"^sweep.storage='.*sweep.db': can't be used: the server is stopped$"):
        store.names(storage)
    with pytest.raises(RecurlabError) as caught, store.open():
        storage.get_all_studies()
    assert str(caught.value) == f"sweep.storage='{store.file}': fails: the server is stopped"
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        InterfaceError("select", {}, sqlite3.InterfaceError("gone")),
        DBAPIError("select", {}, sqlite3.DatabaseError("gone"), connection_invalidated=True),
        PendingRollbackError("Can't reconnect until invalid transaction is rolled back."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_made_again(storage, outage, monkeypatch, error):
    monkeypatch.setattr(outage, "error", error)
    outage.statements = 1
    storage.get_all_studies()
    assert outage.statements == 0


def test_who_is_told_to_end_does_not_wait(store, storage, outage, monkeypatch):
    outage.statements = 10**6
    monkeypatch.setattr(store.patience, "told", lambda: True)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        storage.get_all_studies()


def test_what_is_wrong_with_a_call_is_not_waited_for(storage, capfd):
    with pytest.raises(KeyError):
        storage.get_trial(7)
    assert capfd.readouterr().err == ""


def test_a_trial_is_not_taken_for_dead_by_its_silence_in_an_outage(storage, outage, monkeypatch):
    monkeypatch.setattr(storage, "grace_period", 1)
    study = optuna.create_study(storage=storage, study_name="three")
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')")
    outage.statements = 1
    fail_stale_trials(study)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    monkeypatch.setattr(storage.patience, "back", storage.patience.back - 1)
    fail_stale_trials(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
