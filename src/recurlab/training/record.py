"""What a run keeps of itself: how it stands, and what it comes from."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from recurlab.errors import Preempted, Pruned, RecurlabError, check_instance, say
from recurlab.files import write_text
from recurlab.training.provenance import provenance, uncommitted
from recurlab.training.run_dir import RunDir, read_json, write_json
from recurlab.training.signals import requeue


@contextmanager
def status_kept(run: RunDir) -> Iterator[None]:
    """Keep in the run's status how it ends."""
    try:
        yield
        run.set_status("finished")
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the one into the other
        _try(run, "interrupted")
        raise KeyboardInterrupt(f"the run is kept in {run.path}") from stop
    except Preempted as stop:
        if stop.signum == signal.SIGINT:
            _try(run, "interrupted", str(stop))
            raise KeyboardInterrupt(f"the run is kept in {run.path}") from stop
        _try(run, "preempted", str(stop))
        requeue(stop.signum)
        raise
    except Pruned as stop:
        _try(run, "pruned", str(stop))
        raise
    except Exception as error:
        _try(run, "failed", str(error) or type(error).__name__)
        raise


def _try(run: RunDir, state: str, reason: str = "") -> None:
    """Keep how the run has ended; on a disk that is full it is said on the screen alone."""
    with suppress(OSError):
        run.set_status(state, reason)


def keep_provenance(run: RunDir, seed: int, notes: tuple[str, ...]) -> None:
    """Write what the run comes from; if it is continued, add what this part of it comes from."""
    found: dict[str, Any] = {**provenance(seed), "data": list(notes)}
    if run.provenance.is_file():
        try:
            first = read_json(run.provenance)
            check_instance("continued", parts := first.get("continued") or [], list)
            found = {**first, "continued": [*parts, found]}
        except RecurlabError as error:
            say(f"{error}; what earlier parts of the run came from is lost")
    else:
        write_text(run.patch, uncommitted())
    write_json(run.provenance, found)
