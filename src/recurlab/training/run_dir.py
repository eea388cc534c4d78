"""Where a run is kept: its files, their names, and their writing in one piece."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from recurlab.errors import RecurlabError, one_line, path_of
from recurlab.files import write_text
from recurlab.foreign import content_of
from recurlab.locks import acquire

if TYPE_CHECKING:
    from omegaconf import DictConfig

PATIENCE = 5.0  # seconds for a process that is about to end
MOST = 2**28  # bytes of a file that is read
FORMAT = 3  # raised when the meaning of a file in a run directory changes


class RunDir:
    """``<output_dir>/<experiment>/<unique>/``.

    It holds config.yaml (resolved), data.json, provenance.json, diff.patch, status.json,
    metrics.csv, checkpoints/best.ckpt, last.ckpt and previous.ckpt, result.json, curves.png, and
    confusion.csv for a classification; after a report also report.html, and confusion.png; with
    logger=wandb also wandb.json, the id of its run there.

    Args:
        path: of the directory.
        job: what is run, as `recurlab.training.job.Identity` names it; runs of the same job arrive
            at the same result.
    """

    def __init__(self, path: Path, job: str = "") -> None:
        self.path, self.job = path, job
        self.config = path / "config.yaml"
        self.facts = path / "data.json"
        self.provenance = path / "provenance.json"
        self.patch = path / "diff.patch"
        self.status = path / "status.json"
        self.metrics = path / "metrics.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.next = self.checkpoints / "next.ckpt"  # until it is the last one
        self.previous = self.checkpoints / "previous.ckpt"
        self.result = path / "result.json"
        self.confusion = path / "confusion.csv"
        self.confusion_picture = path / "confusion.png"
        self.curves = path / "curves.png"
        self.report = path / "report.html"

    @classmethod
    def create(
        cls, output_dir: str, experiment: str, resolved: "DictConfig", job: str = "", name: str | None = None
    ) -> "RunDir":
        """Make a new run directory that holds the resolved config.

        Args:
            output_dir, experiment, resolved: of the config.
            job: what is run.
            name: of the directory; None gives one of its own.

        Raises:
            RecurlabError: if it can't be written.
        """
        from omegaconf import OmegaConf  # here and below: who writes other files needs none

        unique = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        run = cls(path_of("output_dir", output_dir) / experiment / (name or unique), job)
        try:
            run.path.mkdir(parents=True, exist_ok=name is not None)  # one that was killed here has left no status
            run.checkpoints.mkdir(exist_ok=True)
            if not run.status.is_file():  # else another process makes it at the same time, and may be on its way
                write_text(run.config, OmegaConf.to_yaml(resolved))
                run.set_status("running")
        except OSError as error:
            raise RecurlabError(f"output_dir={output_dir!r}: can't be written: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunDir":
        """Return the run directory at `path`.

        Raises:
            RecurlabError: if there is none, or one of another version.
        """
        run = cls(path_of("run", str(path)))
        if not run.status.is_file() or not run.config.is_file():
            raise RecurlabError(f"run={str(path)!r}: not a run directory, it needs status.json and config.yaml")
        status = read_json(run.status)
        found, job = status.get("format"), status.get("job", "")
        if found != FORMAT:
            raise RecurlabError(f"run={str(path)!r}: its format is {found!r}, this version of recurlab reads {FORMAT}")
        run.job = job if isinstance(job, str) else ""
        return run

    @classmethod
    def find(cls, output_dir: str, experiment: str, wanted: Callable[["RunDir"], bool]) -> "RunDir | None":
        """Return a run that is wanted: one that has finished, else the last that was written; None if there is none."""
        found = []
        for status in (path_of("output_dir", output_dir) / experiment).glob("*/status.json"):
            try:
                run = cls.open(status.parent)
                if wanted(run):
                    found.append((run.state == "finished", status.stat().st_mtime, str(run.path), run))
            except (RecurlabError, OSError):  # damaged, or of another version
                continue
        return max(found)[-1] if found else None

    @property
    def state(self) -> str:
        """How the run stands, as `set_status` was told."""
        return str(read_json(self.status).get("state"))

    @contextmanager
    def held(self, patience: float = PATIENCE) -> Iterator[None]:
        """Keep other processes from training this run, for as long as this one lives.

        Args:
            patience: seconds for one that is about to end.

        Raises:
            RecurlabError: if another one does, and has not ended by then.
        """
        with self._lock() as file:
            # The workers that load data are forked: one that outlives the trainer must not keep the run.
            try:
                ours = acquire(file, patience, inherited=False)
            except OSError as error:
                raise RecurlabError(f"{self.path}: can't be locked: {error.strerror}") from error
            if not ours:
                raise RecurlabError(f"run={str(self.path)!r}: another process is training it")
            yield

    def _lock(self) -> IO[bytes]:
        path = self.path / ".lock"
        try:  # nobody may read from it, where it is a pipe
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666), "wb")
        except OSError as error:
            raise RecurlabError(f"{path}: can't be opened: {error.strerror}") from error

    def settle(self, used: Path | None = None) -> Path | None:
        """Make next.ckpt, if there is one, the last checkpoint, and the last one the previous.

        Args:
            used: the checkpoint that the run goes on from; if it is the previous one, nothing is
                renamed.

        Returns:
            The path that `used` has then.
        """
        if not self.next.is_file() or used == self.previous:
            return used
        if self.last.exists():
            self.last.replace(self.previous)
        self.next.replace(self.last)
        return {self.next: self.last, self.last: self.previous}.get(used, used) if used else None

    def set_status(self, state: str, reason: str = "") -> None:
        """Say how the run stands: queued, running, finished, failed, interrupted, preempted or pruned."""
        write_json(self.status, {"format": FORMAT, "state": state, "reason": reason, "job": self.job})

    def load_config(self) -> "DictConfig":
        """Return the resolved config; a damaged one, or one with interpolations, is an error."""
        from recurlab.schema import plain, read_yaml

        return plain(read_yaml(self.config))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one piece."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; a missing or damaged one is an error."""
    try:
        content = json.loads(content_of(path, MOST), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise RecurlabError(f"{path}: can't be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise RecurlabError(f"{path}: not a JSON object")
    return content
