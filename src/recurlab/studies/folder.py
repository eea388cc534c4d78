"""The studies under the current folder, and the reading of their definitions."""

from typing import Any

from omegaconf import OmegaConf

from recurlab.config import typed
from recurlab.errors import RecurlabError, unknown
from recurlab.schema import read_yaml
from recurlab.studies.definition import FILE, FOLDER, Study
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.speeds import Speed

KINDS = {"bench": Speed, "benchmarks": Reproduction}  # by a key that they alone have; all others are a `Study`


def names() -> list[str]:
    """Return the studies under the current folder."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{FILE}"))


def some() -> list[str]:
    """Return the studies under the current folder, of which there must be one."""
    if not (found := names()):
        raise RecurlabError(f"study: there is none here, which would be {FOLDER}/*/{FILE}")
    return found


def load(name: str) -> Study | Speed:
    """Return a study by the name of its folder under ``experiments/``.

    Raises:
        RecurlabError: if there is none, or its sweep.yaml has an unknown key, a wrong type or a name that is not there.
    """
    if name not in names():
        raise unknown("study", name, names())
    path = FOLDER / name / FILE
    content = read_yaml(path)
    try:
        plain: Any = _texts(OmegaConf.to_container(content, resolve=False))
        schema = next((kind for key, kind in KINDS.items() if key in plain), Study)
        study: Any = OmegaConf.to_object(typed("", schema, OmegaConf.create(plain)))
    except RecurlabError as error:
        raise RecurlabError(f"{path}: {error}") from error
    study.folder = path.parent
    made: Study | Speed = study
    return made


def _texts(value: Any, place: tuple[str, ...] = ()) -> Any:
    """Return what a YAML file holds with levels, which may look like numbers, as texts, and no interpolations."""
    if isinstance(value, dict):
        return {str(key): _texts(entry, (*place, str(key))) for key, entry in value.items()}
    if isinstance(value, list):
        return [_texts(entry, place) for entry in value]
    if isinstance(value, str):
        return value.replace("${", "\\${")
    named = place[:1] in (("skip",), ("factors",)) or place[:2] == ("adjust", "when") or "levels" in place[2:3]
    return str(value) if named and isinstance(value, int | float) else value
