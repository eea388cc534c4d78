"""What makes two runs the same: everything in a config that its outcome depends on."""

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Where a run is kept and launched, what it shows, and how files and modules are called on one machine or another.
WITHOUT_EFFECT = (
    "output_dir", "resume", "launcher", "logger", "plugins", "data.dir", "data.verify",
    "trainer.num_workers", "trainer.enable_progress_bar", "trainer.checkpoint_every_n_steps",
    "trainer.stall_timeout",
)  # fmt: skip
# Groups all of whose keys have a value in every config. What is off there (null, false, 0, nothing) does not count, so
# that a job keeps its name when a later version adds an option to them.
WHOLE = ("trainer", "model", "loss")


def digest(resolved: DictConfig, but: tuple[str, ...] = ()) -> str:
    """Return the name of a job: 12 letters and digits that resolved configs of the same outcome share.

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
    for group in WHOLE:
        content[group] = _without_off(content.get(group, {}))
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _without_off(group: dict[str, Any]) -> dict[str, Any]:
    """Return what is not off in a group, and in the groups in it."""
    rest = {key: _without_off(value) if isinstance(value, dict) else value for key, value in group.items()}
    return {key: value for key, value in rest.items() if value}


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
