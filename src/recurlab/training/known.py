"""Whether a run that is there is of a job, and whether it can be continued: found out before any of it is changed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from recurlab.data.fingerprint import fingerprint
from recurlab.errors import Preempted, Pruned, RecurlabError
from recurlab.files import write_bytes
from recurlab.training.job import Identity
from recurlab.training.run_dir import RunDir, read_json

if TYPE_CHECKING:
    from recurlab.config import Config
    from recurlab.problems.problem import Problem
    from recurlab.training.build import Facts

FILES = "files"  # what data.json calls the fingerprint of the files


def is_of(run: RunDir, identity: Identity) -> bool:
    """Return whether a run is of a job.

    If the files can't tell, because they are not here or an earlier version has kept no fingerprint
    of them, the run is of the job if both configs name the same paths.
    """
    if identity.data is not None and run.job == identity.name:
        return True
    if not identity.has(run.job) or (identity.data is not None and recorded(run) is not None):
        return False
    saved = run.load_config()
    return all(OmegaConf.select(saved, key) == value for key, value in identity.place.items())


def is_as_old(run: RunDir, identity: Identity, config: "Config") -> bool:
    """Return whether a run without a fingerprint of its files can have read them as they are.

    It can if none of them was written after the run had begun.
    """
    if not identity.data or recorded(run) is not None or not run.facts.is_file():  # a run in a queue has read none yet
        return True
    begun = run.patch if run.patch.is_file() else run.facts  # the one is not written anew when a run goes on
    return all(path.stat().st_mtime <= begun.stat().st_mtime for path in config.data.sources().values())


def recorded(run: RunDir) -> str | None:
    """Return the fingerprint of the files that a run was trained on; None where it has not kept it."""
    found = None
    with suppress(RecurlabError):  # of a file that is damaged; a run's name tells it too
        found = read_json(run.facts).get(FILES) if run.facts.is_file() else None
    return found if isinstance(found, str) else run.job.partition("-")[2] or None


def check_data(run: RunDir, identity: Identity, facts: "Facts | None" = None) -> None:
    """Raise unless a run was trained on the data that it is to go on with, whose facts are None if not yet known."""
    of_run = f"run={str(run.path)!r}"
    known = recorded(run)
    if None not in (known, identity.data) and known != identity.data:
        place = ", ".join(f"{key}={value!r}" for key, value in identity.place.items() if value is not None) or "data"
        raise RecurlabError(f"{place}: not the data that {of_run} was trained on; train another run, without resume")
    if facts is None:
        return
    from recurlab.training.build import Facts

    try:
        before = Facts.read(read_json(run.facts))
    except RecurlabError:  # a run that was killed as it began has none; and they are written anew
        return
    if difference := before.difference(facts):
        raise RecurlabError(f"data: not as those that {of_run} was trained on: {difference}")


def check_weights(path: Path, state: dict[str, Any], problem: "Problem") -> None:
    """Raise unless the weights of a checkpoint are those of a model, by their names and shapes."""
    wanted = {name: tuple(weight.shape) for name, weight in problem.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in state.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise RecurlabError(
                f"{path}: not a checkpoint of this model: {name} is {found.get(name)}, must be {wanted.get(name)}"
            )


def check_unchanged(config: "Config", known: str | None) -> None:
    """Raise if the files are no longer those of which a fingerprint was taken."""
    if fingerprint(config.data) != known:
        raise RecurlabError("data: the files were changed while the run was reading them; start it again")


@contextmanager
def left_as_it_was(run: RunDir) -> Iterator[None]:
    """Put a finished run back as it was if going on with it fails before it has written a new checkpoint."""
    files = [path for path in (run.config, run.facts, run.provenance, run.metrics, run.status) if path.is_file()]
    before = {path: path.read_bytes() for path in files} if run.state == "finished" else {}
    checkpoints = _written(run)
    try:
        yield
    except (Preempted, Pruned):  # which go on
        raise
    except Exception:
        if _written(run) == checkpoints:
            with suppress(OSError):
                for path, content in before.items():
                    write_bytes(path, content)
        raise


def _written(run: RunDir) -> set[tuple[str, int, int]]:
    found = ((path.name, path.stat()) for path in run.checkpoints.glob("*.ckpt"))
    return {(name, about.st_ino, about.st_mtime_ns) for name, about in found}
