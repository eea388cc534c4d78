"""One run of Weights & Biases for each run directory, which holds all that it writes.

Its service is a process of its own. Where that is lost, or the network, the training goes on.
"""

import math
import netrc
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import WandbLogger

from recurlab.errors import RecurlabError, one_line
from recurlab.training.run_dir import read_json, write_json

ROWS = 10  # numbers for each optimiser step: a row for the learning rate, training, validation, the epoch
GRACE = 10.0  # seconds that a run which is stopped has to send what it holds: a cluster soon kills it

# What names a run, as an agent's or a parent process's does, would make all jobs of a grid the same one.
NAMING = {
    "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH",
    "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_DIR", "WANDB_LAUNCH", "WANDB_SERVICE", "WANDB_MODE",
}  # fmt: skip
DEFAULTS = {
    "WANDB_INIT_TIMEOUT": "20",  # seconds; its own 90 are long for a machine without a network
    "WANDB_FINISH_TIMEOUT": "600",  # seconds; what has not been sent by then is kept
    "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "0.1",  # seconds; a run that is killed loses what is not in its file
    "WANDB_SYMLINK": "false",
    "WANDB_ERROR_REPORTING": "false",  # without a network it is tried for long, at the end of the process
}


class RunLogger(WandbLogger):
    """Numbers each row after its optimiser step, so that a continued run goes on where its first part stood.

    wandb's own count of rows would begin at 0 again, offline; online it would log a second time
    what came between the last checkpoint and the end.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._next, self._lost = 0, False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row at once, if no earlier part of the run has."""
        number = self._next if step is None else max(self._next, ROWS * step)
        self._next = number + 1
        try:
            if not self._lost and number >= self.experiment.starting_step:
                self.experiment.log({**metrics, "trainer/global_step": step}, step=number, commit=True)
        except (OSError, wandb.Error) as error:
            self._lost = True
            _warn(f"its service is gone, {_reason(error)}; the rest is in metrics.csv alone")


def begin(run: Path, options: dict[str, Any]) -> RunLogger | None:
    """Begin the run of a run directory, or continue it; None if W&B is switched off.

    Args:
        run: the directory.
        options: of ``wandb.init``.

    Raises:
        RecurlabError: if it can't be begun.
    """
    mode = _mode()
    if mode == "disabled":
        return None
    folder = run.resolve()
    options = {**options, "id": _identity(run), "resume": "allow", "dir": str(folder), "reinit": "finish_previous"}
    with _environment(folder):
        begun = _online(folder, options) if mode == "online" else None
        try:
            begun = begun or wandb.init(**options, mode="offline", settings=wandb.Settings(silent=True))
        except Exception as error:
            raise RecurlabError(f"logger=wandb: {_reason(error)}") from error
    begun.define_metric("trainer/global_step")
    begun.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return RunLogger(experiment=begun, project=options["project"], save_dir=str(folder))


def finish(best: Path, metrics: dict[str, float]) -> None:
    """Log the best checkpoint and the last metrics, and end the run. What fails is said and leaves the result alone."""
    run = wandb.run
    if run is None:
        return
    with _environment(Path(run.settings.root_dir)), _tolerant("the best checkpoint is not logged"):
        kept = {key: value if math.isfinite(value) else str(value) for key, value in metrics.items()}
        artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=kept)
        artifact.add_file(str(best.resolve()), skip_cache=True)
        run.log_artifact(artifact, aliases=["best"])
    with _tolerant("the run is not finished"):
        run.summary.update(metrics)
        run.finish(exit_code=0)


def close() -> None:
    """End the run as a failed one if it is not finished, and the service: the next run has its own."""
    if wandb.run is not None:
        ending = threading.Thread(target=_end, args=(wandb.run,), daemon=True)
        ending.start()
        ending.join(GRACE)
    with suppress(Exception, SystemExit):
        wandb.teardown()


@contextmanager
def _tolerant(failure: str) -> Iterator[None]:
    """Say what has failed, and go on."""
    try:
        yield
    except Exception as error:
        _warn(f"{failure}, {_reason(error)}")


def _end(run: Any) -> None:
    with suppress(Exception):
        run.finish(exit_code=1)


def _online(folder: Path, options: dict[str, Any]) -> Any:
    """Return a run that is sent as it goes, or None if the server can't be reached or refuses."""
    try:
        return wandb.init(**options, mode="online", settings=wandb.Settings(quiet=True))
    except Exception as error:
        _warn(f"{_reason(error)}; this run is kept offline, to be sent by: wandb sync {folder / 'wandb'}/offline-run-*")
        with suppress(Exception, SystemExit):
            wandb.teardown()  # which still holds the id
        return None


def _identity(run: Path) -> str:
    """Return the id that a run directory has and keeps, wherever it is moved; a new directory has a new one."""
    path = run / "wandb.json"
    if not path.is_file():
        write_json(path, {"id": secrets.token_hex(6)})
    found = read_json(path).get("id")
    if not isinstance(found, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found):
        raise RecurlabError(f"{path}: id={found!r}: must be 1 to 64 letters, digits, _ or -")
    return found


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Give wandb the user's environment, but a run's names from its config and its folders in the run directory."""
    given = {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}
    mine = {"WANDB_DATA_DIR": str(folder / "wandb"), "WANDB_CACHE_DIR": str(folder / "wandb" / "cache")}
    _replace({**DEFAULTS, **{key: value for key, value in given.items() if key not in NAMING}, **mine})
    try:
        yield
    finally:
        _replace(given)


def _replace(variables: dict[str, str]) -> None:
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        del os.environ[key]
    os.environ.update(variables)


def _mode() -> str:
    """Return online, offline or disabled, without asking for a key or touching the network."""
    wanted = os.environ.get("WANDB_MODE")
    if wanted == "disabled":
        return "disabled"
    return "online" if wanted not in ("offline", "dryrun") and _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(host) for host in ([own] if own else ["api.wandb.ai", "api.forge.coreweave.com"]))


def _reason(error: BaseException) -> str:
    return one_line(error)[:200] or type(error).__name__


def _warn(text: str) -> None:
    print(f"logger=wandb: {text}")
