"""Which studies a worker joins, and which it refuses; the lock by which one begins a trial alone."""

from itertools import count

import optuna
import pytest
from optuna.study import StudyDirection
from sqlalchemy.exc import IntegrityError, OperationalError

from recurlab.errors import RecurlabError
from recurlab.locks import acquire
from recurlab.sweep import store as stores
from recurlab.sweep.store import FACTS, Lock, Store, sqlite

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")  # of trials asked for here
NUMBERS = count()
FACTS_OF = {"space": {"seed": "[0, 1]"}, "base": {"cell": "gru", "sizes": (1, 2)}, "files": ["ab12"], "words": ["x"]}


def judged():
    return "valid/accuracy", "max"


@pytest.fixture
def name():
    """The name of this test's study."""
    return f"study {next(NUMBERS)}"


@pytest.fixture
def join(opened, name):
    """Return a function that joins this test's study."""
    store, storage = opened

    def join(judged=judged, **facts):
        return store.join(storage, name, {**FACTS_OF, **facts}, judged)

    return join


def test_the_first_worker_makes_the_study_and_the_second_joins_it(join):
    study = join()
    assert study.direction is StudyDirection.MAXIMIZE
    assert study.user_attrs[FACTS] == {
        **FACTS_OF, "base": {"cell": "gru", "sizes": [1, 2]}, "metric": "valid/accuracy",
    }  # fmt: skip
    study.ask()
    assert len(join(lambda: pytest.fail("is known")).trials) == 1
    assert join(words=["other", "words"]).user_attrs[FACTS]["words"] == ["x"]


def test_a_study_that_was_begun_but_not_yet_described_is_described(opened, join, name):
    optuna.create_study(storage=opened[1], study_name=name)
    study = join()
    assert (study.user_attrs[FACTS]["metric"], study.direction) == ("valid/accuracy", StudyDirection.MINIMIZE)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"space": {"seed": "[0]"}},
            r"sweep\.space\.seed='\[0\]': the study '.*' in .*sweep\.db has '\[0, 1\]'; give ",
        ),
        ({"space": {**FACTS_OF["space"], "cell": "[gru]"}}, r"sweep\.space\.cell='\[gru\]': the study .* has None; "),
        ({"space": {}}, r"sweep\.space\.seed=None: the study .* has '\[0, 1\]'; give another sweep\.name"),
        (
            {"base": {"cell": "lstm", "sizes": (1, 2)}},
            r"^cell='lstm': the study .* has 'gru'; give another sweep\.name",
        ),
        ({"files": ["cd34"]}, r"^data: the study .* is of other files; give another sweep\.name to begin a new one"),
    ],
)
def test_a_study_of_something_else_is_refused(join, other, said):
    join()
    with pytest.raises(RecurlabError, match=said):
        join(**other)


@pytest.mark.parametrize(("known", "ours"), [(["ab12"], [None]), ([None], ["ab12"])])
def test_files_that_are_not_here_are_not_compared(join, known, ours):
    join(files=known)
    assert join(files=ours).user_attrs[FACTS]["files"] == known


def test_a_study_of_a_version_that_did_not_look_at_files_takes_those_of_now(join):
    study = join()
    study.set_user_attr(FACTS, {key: value for key, value in study.user_attrs[FACTS].items() if key != "files"})
    assert join(files=["cd34"]).user_attrs[FACTS]["files"] == ["cd34"]


def test_a_study_of_another_program_is_refused(opened, join, name):
    study = optuna.create_study(storage=opened[1], study_name=name)
    study.set_user_attr("theirs", 1)
    with pytest.raises(RecurlabError, match=r"sweep\.name='.*': the study in .* was not made by recurlab sweep"):
        join()


@pytest.mark.parametrize(
    ("url", "file", "shown"),
    [("sqlite:///some/sweeps.db", True, "/some/sweeps.db"),
     ("postgresql://user:secret@host/name", False, "postgresql://user:***@host/name"),
     ("mysql+pymysql://host/name", False, "mysql+pymysql://host/name")],
)  # fmt: skip
def test_only_a_file_is_locked_and_no_password_is_shown(url, file, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(url, 1, 1)
    assert ((store.file is not None), store.name.removeprefix(str(tmp_path))) == (file, shown)
    with store.lock:
        assert [path.name for path in tmp_path.rglob("*.lock")] == ([".sweeps.db.lock"] if file else [])


def test_what_is_no_address_is_refused():
    with pytest.raises(RecurlabError, match=r"^sweep\.storage='sqlite': not the address of a database$"):
        Store("sqlite", 1, 1)


@pytest.mark.parametrize("file", ["a b.db", "50%.db", "a?b#c.db", "{a}.db"])
def test_any_path_may_be_a_database(file, tmp_path):
    assert Store(sqlite(tmp_path / file), 1, 1).file == tmp_path / file


@pytest.mark.parametrize("fails", [OperationalError, IntegrityError, KeyError])
def test_what_passes_is_tried_again(fails, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    store, calls = Store("sqlite:///x.db", 1, 1), []

    def make(times):
        calls.append(times)
        if len(calls) <= times:
            raise fails("made twice", {}, Exception("locked")) if fails is not KeyError else KeyError("no")
        return "made"

    if fails is KeyError:
        with pytest.raises(KeyError):
            store._tried(lambda: make(1))
        return
    assert store._tried(lambda: make(stores.TRIES - 1)) == "made"
    calls.clear()
    with pytest.raises(RecurlabError, match=r"^sweep\.storage='.*x\.db': can't be used: locked$"):
        store._tried(lambda: make(stores.TRIES))


def test_a_lock_is_held_by_one_and_given_back_once(tmp_path):
    path = tmp_path / "folder" / ".lock"
    lock = Lock(path)
    with lock, path.open("a") as other:
        with lock:  # it has it already
            assert not acquire(other, 0)
        assert acquire(other, 0)
    lock.release()
    lock.release()
    with Lock(None) as nothing:
        nothing.release()
    assert list(tmp_path.iterdir()) == [path.parent]
