"""What makes two runs the same: all that their outcome depends on, in the config and in the files that it names."""

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from recurlab.errors import RecurlabError
from recurlab.former import former_cell

if TYPE_CHECKING:
    from recurlab.config import Config

# Where a run is kept and launched, what it shows, and how files and modules are called on one machine or another.
WITHOUT_EFFECT = (
    "output_dir", "resume", "launcher", "logger", "plugins", "data.dir", "data.verify",
    "trainer.num_workers", "trainer.enable_progress_bar", "trainer.checkpoint_every_n_steps",
    "trainer.stall_timeout",
)  # fmt: skip
# Groups all of whose keys have a value in every config. What is off there (null, false, 0, nothing) does not count, so
# that a job keeps its name when a later version adds an option to them.
WHOLE = ("trainer", "model", "loss")
ZERO_COUNTS = ("stopping_threshold", "gate_bias")  # where 0 is not off: none is another value


@dataclass(frozen=True)
class Identity:
    """A job: runs of the same one arrive at the same result.

    Attributes:
        config: 12 letters and digits that configs of the same outcome share, wherever their files
            are.
        data: the fingerprint of the files, "" where the config says all; None where they are not
            here.
        place: where they are: the values of `PLACES`.
        former: the name of the job in versions that did not look at the files.
    """

    config: str
    data: str | None
    place: dict[str, Any]
    former: str

    PLACES: ClassVar = ("data.dir", "data.path", "data.hub")

    @classmethod
    def of(cls, config: "Config", resolved: DictConfig, files: "Identity | None" = None) -> "Identity":
        """Return what a config makes.

        Args:
            config: typed.
            resolved: the same.
            files: of a job that reads the same ones.
        """
        from recurlab.data.fingerprint import fingerprint

        try:
            data = fingerprint(config.data) if files is None else files.data
        except (RecurlabError, OSError):  # whoever reads them says what is wrong
            data = None
        place = {key: OmegaConf.select(resolved, key) for key in cls.PLACES}
        return cls(digest(resolved, but=places(config)), data, place, digest(resolved))

    @property
    def name(self) -> str:
        """By which a run directory is called."""
        return f"{self.config}-{self.data}" if self.data else self.config

    def has(self, name: str) -> bool:
        """Return whether a name is one of the job: the former one too, or with any files where they are not here."""
        return name in (self.name, self.former) or (self.data is None and name.partition("-")[0] == self.config)


def places(config: "Config") -> tuple[str, ...]:
    """Return the keys, beside data.dir, that only say where files are."""
    return tuple(f"data.{key}" for key in config.data.places)


def digest(resolved: DictConfig, but: tuple[str, ...] = ()) -> str:
    """Return 12 letters and digits that resolved configs of the same outcome share.

    Args:
        resolved: the config.
        but: further keys that may differ.
    """
    content: Any = OmegaConf.to_container(resolved)
    for key in (*WITHOUT_EFFECT, *but):
        place, _, name = key.rpartition(".")
        part = content.get(place) if place else content
        if isinstance(part, dict):
            part.pop(name, None)
    if "cell" in content:
        content["cell"] = former_cell(content["cell"])
    for group in WHOLE:
        content[group] = _without_off(content.get(group, {}))
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _without_off(group: dict[str, Any]) -> dict[str, Any]:
    """Return what is not off in a group, and in the groups in it."""
    rest = {
        key: _without_off(value) if isinstance(value, dict) and key not in ZERO_COUNTS else value
        for key, value in group.items()
    }
    return {key: value for key, value in rest.items() if value or (key in ZERO_COUNTS and value == 0)}


def leaves(config: DictConfig, but: tuple[str, ...] = (), place: str = "") -> dict[str, Any]:
    """Return the values in a config that are no mappings, by their full names.

    Args:
        config: whose values.
        but: full names, which are left out with all that is below.
        place: of the config, with a dot at its end.
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{place}{name!s}"
        if key in but:
            continue
        if isinstance(value, DictConfig):
            found.update(leaves(value, but, f"{key}."))
        else:
            found[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return found
