"""Optuna's storage, whose calls wait while the database is away."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from recurlab.errors import one_line, say

LIMIT = 300.0  # seconds that a database may be away
PAUSE = 0.5  # seconds between two tries
FAILURES = (SQLAlchemyError, StorageInternalError)  # what a call may raise if the database fails

T = TypeVar("T")


def cause(error: BaseException) -> BaseException:
    """Return the database's own error, which Optuna wraps."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error


def reason(error: BaseException) -> str:
    """Return what the driver says, in one line."""
    inner = cause(error)
    return one_line(getattr(inner, "orig", None) or inner)


class Patience:
    """Repeats calls while a database is away; all threads share one message and one time limit.

    Args:
        name: of the database.

    Attributes:
        told: returns whether the process is to end, and so waits no longer.
        back: when the database came back, by the monotonic clock.
    """

    def __init__(self, name: str) -> None:
        self.told: Callable[[], bool] = lambda: False
        self.back = float("-inf")
        self._name, self._lock = name, threading.Lock()
        self._since: float | None = None

    def call(self, function: Callable[[], T]) -> T:
        """Return the result of a function, called again while the database is away.

        Raises:
            SQLAlchemyError, StorageInternalError: of the function, if the database fails otherwise,
                or for too long.
        """
        while True:
            try:
                result = function()
            except FAILURES as error:
                if not _away(error) or self._over(error):
                    raise
                time.sleep(PAUSE)
            else:
                with self._lock:
                    if self._since is not None:
                        self._since, self.back = None, time.monotonic()
                return result

    def _over(self, error: Exception) -> bool:
        """Return whether the waiting is over."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                say(f"sweep.storage={self._name!r}: is away: {reason(error)}; waiting up to {LIMIT:g} s for it")
            return self.told() or time.monotonic() - self._since > LIMIT


def _away(error: BaseException) -> bool:
    """Return whether the same call may succeed later."""
    inner = cause(error)
    lost = isinstance(inner, DBAPIError) and inner.connection_invalidated
    # PendingRollbackError: Optuna ignored the first error and asked again on the lost connection.
    return lost or isinstance(inner, OperationalError | InterfaceError | PendingRollbackError)


class PatientStorage(RDBStorage):
    """A storage whose calls wait while the database is away.

    Args:
        patience: repeats the calls.
        url, engine_kwargs, options: as of Optuna's own.
    """

    def __init__(self, patience: Patience, url: str, engine_kwargs: dict[str, Any], **options: Any) -> None:
        self.patience = patience
        super().__init__(url, engine_kwargs, **options)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Return the trials without heartbeats; none right after an outage, which stopped them."""
        if time.monotonic() - self.patience.back < (self.grace_period or 0):
            return []
        return self.patience.call(lambda: super(PatientStorage, self)._get_stale_trial_ids(study_id))

    def record_heartbeat(self, trial_id: int) -> None:
        """Send a heartbeat; if the database is away for too long, the next one will do."""
        with suppress(*FAILURES):
            self.patience.call(lambda: super(PatientStorage, self).record_heartbeat(trial_id))


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patience.call(lambda: method(self, *args, **kwargs))

    return call


# All that asks the database; Optuna's cache in front of a storage calls some of its private
# methods.
_CACHED = {"_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id"}
for _name in (BaseStorage.__abstractmethods__ | _CACHED) & vars(RDBStorage).keys():
    setattr(PatientStorage, _name, _patient(_name))
