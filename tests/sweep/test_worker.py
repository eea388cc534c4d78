"""What a worker makes of each way in which a run may end, without a run: the jobs and their queue are stood in for."""

import time
from types import SimpleNamespace

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from recurlab.errors import RecurlabError
from recurlab.launch.jobs import Outcome
from recurlab.locks import acquire
from recurlab.sweep import worker
from recurlab.sweep.settings import SweepSettings
from recurlab.sweep.space import parse_space, points
from recurlab.sweep.store import FACTS, Lock, quiet_optuna
from recurlab.sweep.trials import REASON, RUN, STEPS, SURPLUS, WORKER, Next
from recurlab.training.run_dir import RunDir, write_json

RESULT = {
    "chance": {}, "parameters": 1, "epochs": 1, "steps": 1, "seconds": 1.0, "sequences_per_second": 1.0,
    "steps_per_second": 1.0, "backends": [],
}  # fmt: skip


class Memory(InMemoryStorage):
    """A storage without a file, which notes the signs of life."""

    def __init__(self):
        super().__init__()
        self.beats = []

    def record_heartbeat(self, trial_id):
        self.beats.append(trial_id)


class Toy:
    """A study, and a worker whose jobs end as they are told to.

    Attributes:
        outcomes: what becomes of the next runs: an Outcome, an error that is raised, or a function of the options.
        jobs: the values of the runs that were begun.
    """

    def __init__(self, folder, outcomes, count=1, space=None, **settings):
        self.folder, self.outcomes, self.jobs = folder, list(outcomes), []
        self.storage = Memory()
        self.study = optuna.create_study(storage=self.storage)
        self.study.set_user_attr(FACTS, {"metric": "valid/loss"})
        self.signals = SimpleNamespace(received=0)
        parameters = parse_space(space or {"x": [3, 5, 7]})
        given = SweepSettings(**{"sampler": "grid", **settings})
        self.plan = SimpleNamespace(settings=given, space=parameters, count=count, job=self.job)
        self.lock = Lock(folder / "lock")
        self.worker = worker.Worker(self.plan, self.study, self.storage, self.lock, self.signals, threads=2)

    def job(self, values):
        self.jobs.append(tuple(values))
        return SimpleNamespace(values=tuple(values))

    def take(self, job, **options):
        assert (options["threads"], options["quiet"], options["told"]()) == (2, True, bool(self.signals.received))
        with (self.folder / "lock").open("a") as file:
            assert acquire(file, 0), "others may begin a trial as soon as this one has"
        outcome = self.outcomes.pop(0)
        if callable(outcome):
            outcome = outcome(**options)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def work(self):
        self.worker.work()
        return [trial.state for trial in self.study.trials]

    def finished(self, loss, name="run"):
        run = RunDir.create(str(self.folder), "toys", OmegaConf.create({}), name=name)
        write_json(run.result, {**RESULT, "metrics": {} if loss is None else {"valid/loss": loss}})
        return Outcome("finished", run.path)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Return a function that makes a toy."""

    def make(*outcomes, **options):
        toy = Toy(tmp_path, outcomes, **options)
        monkeypatch.setattr(worker, "take_job", toy.take)
        return toy

    monkeypatch.setattr(worker, "run_of", lambda job: None)
    monkeypatch.setattr(worker, "POLL", 0)
    with quiet_optuna():
        yield make


DONE, FAILED, PRUNED, WAITS = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.WAITING


def test_trials_are_begun_until_enough_have_ended(toy, capsys):
    search = toy(count=3)
    search.outcomes = [search.finished(0.5, "a"), Outcome("failed", None, "no memory"), search.finished(0.25, "b")]
    assert search.work() == [DONE, FAILED, DONE]
    assert search.jobs == points(search.plan.space)
    assert [trial.values for trial in search.study.trials] == [[0.5], None, [0.25]]
    assert [trial.user_attrs.get(REASON) for trial in search.study.trials] == [None, "no memory", None]
    assert [trial.user_attrs.get(RUN) for trial in search.study.trials] == [
        str(search.folder / "toys" / "a"), None, str(search.folder / "toys" / "b"),
    ]  # fmt: skip
    assert [trial.user_attrs[WORKER].split()[2] for trial in search.study.trials] == ["0", "1", "2"]
    lines = [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "[1/3] trial 0: x=3: valid/loss 0.5", "[2/3] trial 1: x=5: failed: no memory",
        "[3/3] trial 2: x=7: valid/loss 0.25",
    ]  # fmt: skip
    assert search.work() == [DONE, FAILED, DONE], "nothing is begun where all is done"


KEPT = "[0/1] trial 0: x=3: is kept, and goes on when a worker takes it up"


def test_a_pruned_trial_has_ended(toy, capsys):
    assert toy(Outcome("pruned", None, "hopeless")).work() == [PRUNED]
    assert capsys.readouterr().out.startswith("[1/1] trial 0: x=3: pruned (")


@pytest.mark.parametrize("outcome", [Outcome("preempted"), KeyboardInterrupt()])
def test_a_trial_that_was_interrupted_is_taken_up_again(toy, capsys, outcome):
    search = toy(outcome)
    search.outcomes.append(search.finished(0.5))
    assert search.work() == [DONE]
    assert search.jobs == [("3",)] * 2
    first, second = capsys.readouterr().out.splitlines()
    assert first == KEPT
    assert second.startswith("[1/1] trial 0: x=3: valid/loss 0.5 (")


def test_a_run_that_fails_as_the_worker_is_told_to_end_is_kept(toy, capsys):
    def told(**options):
        search.signals.received = 15
        return Outcome("failed", None, "its process ended with code -15")

    search = toy(told, count=2)
    assert search.work() == [WAITS]
    assert capsys.readouterr().out == KEPT.replace("/1]", "/2]") + "\n"
    assert search.work() == [WAITS], "one that is told to end begins nothing"


@pytest.mark.parametrize("error", [RecurlabError("no process can be started"), ZeroDivisionError("of the worker")])
def test_an_error_of_the_worker_ends_it_and_keeps_the_trial(toy, error):
    search = toy(error)
    with pytest.raises(type(error), match=str(error)):
        search.work()
    assert [trial.state for trial in search.study.trials] == [WAITS]


def test_a_database_that_fails_ends_the_worker_without_a_word_only_if_it_is_told_to(toy):
    def fail(**options):
        search.signals.received = told
        raise StorageInternalError("gone")

    for told in (0, 15):
        search = toy(fail)
        if told:
            search.work()
        else:
            with pytest.raises(StorageInternalError, match="gone"):
                search.work()
        assert [trial.state for trial in search.study.trials] == [TrialState.RUNNING], "found by its silence later"


def test_a_trial_that_another_worker_has_got_is_left_to_it(toy, capsys):
    def silent(**options):
        search.storage.set_trial_state_values(0, TrialState.FAIL)
        return search.finished(0.5)

    search = toy(silent)
    assert search.work() == [FAILED]
    assert capsys.readouterr().out == "[1/1] trial 0: x=3: is another worker's, after a silence of this one\n"


def test_a_run_that_another_process_has_in_hand_is_waited_for(toy):
    search = toy(Outcome("busy"), Outcome("busy"))
    search.outcomes.append(search.finished(0.5))
    assert search.work() == [DONE]
    assert search.jobs == [("3",)]


@pytest.mark.parametrize(
    ("loss", "reason"),
    [(None, "it has no valid/loss: it ended before the first validation"), ("damaged", "result.json: can't be read: ")],
)
def test_a_finished_run_without_a_value_is_a_failed_trial(toy, loss, reason):
    search = toy()
    outcome = search.finished(None if loss == "damaged" else loss)
    if loss == "damaged":
        RunDir(outcome.path).result.write_text("{")
    search.outcomes = [outcome]
    assert search.work() == [FAILED]
    assert reason in search.study.trials[0].user_attrs[REASON]


def test_values_that_make_no_config_are_a_failed_trial(toy):
    search = toy()

    def refuse(values):
        raise RecurlabError("model.hidden_size=0: must be at least 1")

    search.plan.job = refuse
    assert search.work() == [FAILED]
    assert search.study.trials[0].user_attrs[REASON] == "model.hidden_size=0: must be at least 1"


def test_validations_are_told_once_each_and_may_prune(toy):
    def run(ask, **options):
        assert [ask(step, loss) for step, loss in [(10, 1.0), (20, 0.9), (10, 1.0), (20, 0.9), (30, 0.8)]] == [
            False
        ] * 5
        return search.finished(0.8)

    def hopeless(ask, **options):
        return Outcome("pruned" if ask(10, 9.0) else "failed")

    search = toy(run, hopeless, count=2, pruner="halving")
    assert search.work() == [DONE, PRUNED]
    assert search.study.trials[0].intermediate_values == {1: 1.0, 2: 0.9, 3: 0.8}
    assert search.study.trials[0].user_attrs[STEPS] == [10, 20, 30]
    plain = toy(lambda ask, **options: Outcome("failed", None, str(ask)))
    plain.work()
    assert plain.study.trials[0].user_attrs[REASON] == "None", "without a pruner validations are not asked about"


def test_of_two_workers_that_begin_the_last_trial_one_backs_off(toy, monkeypatch, capsys):
    search = toy(count=1)
    other = search.study.ask()
    other.set_user_attr(WORKER, f"elsewhere 1 {other.number}")
    answers = iter([Next.BEGIN, Next.WAIT, Next.END])
    monkeypatch.setattr(worker, "decide", lambda known, count: next(answers))
    assert search.work() == [TrialState.RUNNING, FAILED]
    assert search.study.trials[1].user_attrs == {SURPLUS: True}
    assert (search.jobs, capsys.readouterr().out) == ([], "")


def test_a_worker_waits_for_the_trials_of_others(toy, monkeypatch):
    search, looks = toy(count=1), []
    other = search.study.ask()
    other.set_user_attr(WORKER, f"elsewhere 1 {other.number}")

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            search.study.tell(other, 0.5)

    monkeypatch.setattr(time, "sleep", sleep)
    assert search.work() == [DONE]
    assert looks == [worker.POLL] * 3
    assert search.storage.beats == [], "it has given signs of life itself"


def test_a_trial_whose_worker_died_as_it_began_is_given_one_sign_of_life(toy, monkeypatch):
    """So that it can be found by the silence that follows."""
    search, looks = toy(count=1), []
    dead = search.study.ask()

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            search.study.tell(dead, state=TrialState.FAIL)

    monkeypatch.setattr(time, "sleep", sleep)
    assert search.work() == [FAILED]
    assert search.storage.beats == [dead._trial_id]


def test_a_killed_run_is_found_by_its_job(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "run_of", lambda job: RunDir(tmp_path / "there"))
    search = toy(Outcome("failed", None, "its process ended with code -9"))
    search.work()
    assert search.study.trials[0].user_attrs[RUN] == str(tmp_path / "there")
