"""Where runs are launched."""

import re
from dataclasses import dataclass, field
from typing import Any

from recurlab.errors import RecurlabError, check_integer

# Options of sbatch that keys of the run set.
OF_THE_RUN = {"nodes": "trainer.num_nodes", "ntasks_per_node": "trainer.devices", "ntasks": "trainer.devices"}


@dataclass(frozen=True)
class Local:
    """On this machine, `jobs` runs of a grid at a time."""

    jobs: int = 1

    def __post_init__(self) -> None:
        check_integer("launcher.jobs", self.jobs)


@dataclass(frozen=True)
class Slurm:
    """As a job of Slurm for each run; None leaves an option to Slurm.

    A job has `trainer.num_nodes` machines with `trainer.devices` processes each.

    Attributes:
        partition, account, qos, cpus_per_task, gpus_per_node: as in ``sbatch``.
        time: minutes until Slurm ends the job; before that it saves and is requeued.
        mem: memory of a machine, as 16G.
        setup: lines of shell that come before the run.
        extra: further long options of ``sbatch``; true for one without a value.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    setup: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("time", "cpus_per_task", "gpus_per_node"):
            if getattr(self, key) is not None:
                check_integer(f"launcher.{key}", getattr(self, key))
        for key in ("partition", "account", "qos"):
            _check_value(f"launcher.{key}", getattr(self, key))
        if self.mem is not None and not re.fullmatch(r"\d+[KMGT]?", self.mem):
            raise RecurlabError(f"launcher.mem={self.mem!r}: must be a whole number and K, M, G or T, as 16G")
        for name, value in self.extra.items():
            self._check_extra(name, value)

    def _check_extra(self, name: object, value: object) -> None:
        key = f"launcher.extra.{name}"
        plain = str(name).replace("-", "_")
        if not re.fullmatch("[a-z][a-z0-9_]+", plain):
            raise RecurlabError(f"{key}={value!r}: must be a long option of sbatch, as constraint")
        own = OF_THE_RUN.get(plain) or (f"launcher.{plain}" if hasattr(self, plain) else None)
        if own is not None:
            raise RecurlabError(f"{key}={value!r}: has a key of its own, {own}")
        _check_value(key, value)


def _check_value(key: str, value: object) -> None:
    """Raise unless `value` can stand in a line of a job's script."""
    if value is not None and not (isinstance(value, str | int | float) and str(value).isprintable()):
        raise RecurlabError(f"{key}={value!r}: must be a text of one line, a number, true, false or null")
