"""The database of a study, which one of the workers that start at the same time creates."""

import json
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

from recurlab.errors import RecurlabError, one_line
from recurlab.locks import acquire
from recurlab.sweep.patience import FAILURES, Patience, PatientStorage, reason

FACTS = "recurlab"  # the study's attribute that describes the sweep
GRACE = 4  # missing heartbeats after which a worker counts as dead
BUSY = 60.0  # seconds that SQLite waits for another process
TRIES = 5
DRIVERS = {"postgresql": "postgresql+psycopg"}  # SQLAlchemy's default is an older one
EXTRAS = {"psycopg": "postgres"}  # of ours, by the package that is missing
# Errors that may pass, as when two processes create the tables at once.
PASSING = (OperationalError, IntegrityError, ProgrammingError, StorageInternalError)

T = TypeVar("T")


class Lock:
    """A lock for an SQLite file, held by one process at a time; other databases lock themselves.

    Args:
        path: of the lock file; None locks nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> "Lock":
        if self._path is not None and self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a")
            acquire(self._file)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Store:
    """A database of studies.

    Args:
        url: of an SQLAlchemy dialect.
        heartbeat: seconds between a worker's heartbeats.
        retries: how often a trial is begun again whose worker has died.

    Attributes:
        file: of SQLite, None for another database.
        name: as it is shown, without a password.
        lock: held by a worker while it begins a trial.
        patience: makes calls wait while the database is away.
    """

    def __init__(self, url: str, heartbeat: int, retries: int) -> None:
        self._heartbeat, self._retries = heartbeat, retries
        try:
            given = make_url(url)
            self._url = given.set(drivername=DRIVERS.get(given.drivername, given.drivername))
        except ArgumentError as error:
            raise RecurlabError(f"sweep.storage={url!r}: not the address of a database") from error
        database = self._url.database if self._url.get_backend_name() == "sqlite" else None
        self.file = None if database is None else Path(database).absolute()
        self.name = str(self.file or given.render_as_string(hide_password=True))
        self.patience = Patience(self.name)
        self.lock = Lock(None if self.file is None else self.file.with_name(f".{self.file.name}.lock"))

    @contextmanager
    def open(self) -> Iterator[PatientStorage]:
        """Give the storage; its tables are created if they are missing.

        Raises:
            RecurlabError: if it can't be reached, its driver is missing or its tables are other
                ones; in the block, if it fails.
        """
        storage = None
        try:
            with self.lock:
                # A file that can't be used now will not come back, but a server may.
                storage = self._tried(self._make if self.file else lambda: self.patience.call(self._make))
            yield storage
        except FAILURES as error:
            raise RecurlabError(f"sweep.storage={self.name!r}: fails: {reason(error)}") from error
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()

    def _make(self) -> PatientStorage:
        sqlite = self.file is not None
        url = self._url.set(database=str(self.file)) if sqlite else self._url
        return PatientStorage(
            self.patience,
            url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),  # it is a template
            {"connect_args": {"timeout": BUSY}} if sqlite else {"pool_pre_ping": True},
            heartbeat_interval=self._heartbeat,
            grace_period=GRACE * self._heartbeat,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
                self._retries, inherit_intermediate_values=True
            ),
        )

    def _tried(self, make: Callable[[], T]) -> T:
        """Return the result of a call, repeated while the database is busy or others do the same."""
        for left in range(TRIES - 1, -1, -1):
            try:
                return make()
            except ImportError as error:
                missing = getattr(error.__cause__, "name", None) or one_line(error.__cause__ or error)
                how = f": pip install 'recurlab[{EXTRAS[missing]}]'" if missing in EXTRAS else ", which is not there"
                raise RecurlabError(f"sweep.storage={self.name!r}: needs the package {missing}{how}") from error
            except (*FAILURES, RuntimeError) as error:
                if left and isinstance(error, PASSING):
                    time.sleep(random.uniform(0.1, 1.0))
                    continue
                raise RecurlabError(f"sweep.storage={self.name!r}: can't be used: {reason(error)}") from error
        raise AssertionError

    def names(self, storage: PatientStorage) -> list[str]:
        """Return the names of the studies."""
        return self._tried(lambda: optuna.get_all_study_names(storage))

    def load(self, storage: PatientStorage, name: str) -> optuna.Study:
        """Return an existing study.

        Raises:
            RecurlabError: if it is not one of ours.
        """
        study = self._study(storage, name)
        if not isinstance(study.user_attrs.get(FACTS), dict):
            raise RecurlabError(f"sweep.name={name!r}: the study in {self.name} was not made by recurlab sweep")
        return study

    def join(
        self, storage: PatientStorage, name: str, facts: Mapping[str, Any], judged: Callable[[], tuple[str, str]]
    ) -> optuna.Study:
        """Return a study, created if it is missing.

        Args:
            storage: an open one.
            name: of the study.
            facts: describe the sweep; those of an existing study must be equal.
            judged: returns the metric of a new study, and "min" or "max": which values are better.

        Raises:
            RecurlabError: if the existing study is of another sweep.
        """
        wanted = json.loads(json.dumps(facts, default=str))
        if name not in self.names(storage) or not self._study(storage, name).user_attrs:
            metric, mode = judged()
            self._tried(lambda: self._create(storage, name, {**wanted, "metric": metric}, mode))
        study = self.load(storage, name)
        known = study.user_attrs[FACTS]
        _compare(name, self.name, known, wanted)
        if "files" not in known:
            self._tried(lambda: study.set_user_attr(FACTS, {**known, "files": wanted["files"]}))
        return study

    def _study(self, storage: PatientStorage, name: str) -> optuna.Study:
        return self._tried(lambda: optuna.load_study(study_name=name, storage=storage))

    def _create(self, storage: PatientStorage, name: str, facts: Mapping[str, Any], mode: str) -> None:
        direction: Literal["minimize", "maximize"] = "maximize" if mode == "max" else "minimize"
        with self.lock:
            study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
            if not study.user_attrs and not study.trials:  # else another worker has been faster
                study.set_user_attr(FACTS, facts)


def sqlite(path: Path) -> str:
    """Return the address of an SQLite file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


def _compare(name: str, where: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise if a study is of another sweep, naming the first difference."""
    for part in ("space", "base"):
        theirs, ours = known.get(part, {}), wanted[part]
        for key in sorted({*theirs, *ours}):
            if theirs.get(key) != ours.get(key):
                shown = f"sweep.space.{key}" if part == "space" else key
                raise RecurlabError(
                    f"{shown}={ours.get(key)!r}: the study {name!r} in {where} has {theirs.get(key)!r}; "
                    "give another sweep.name to begin a new one"
                )
    theirs, ours = known.get("files"), wanted["files"]  # None: of a version that did not record them
    if theirs is not None and any(None not in pair and pair[0] != pair[1] for pair in zip(theirs, ours, strict=True)):
        raise RecurlabError(
            f"data: the study {name!r} in {where} is of other files; give another sweep.name to begin a new one"
        )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log, since we print trials, and its warnings of experimental features."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
