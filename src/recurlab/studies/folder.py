"""Finds and reads the studies under the current folder."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recurlab.config import typed
from recurlab.errors import RecurlabError, unknown
from recurlab.schema import read_yaml
from recurlab.studies.definition import FILE, FOLDER, Study
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.speed import SpeedStudy

SCHEMAS = {"bench": SpeedStudy, "benchmarks": Reproduction}  # by a key that only they have; the rest are a `Study`
# The file's name, and two studies' names, in version 0.1.0.
FORMER_FILE = "sweep.yaml"
FORMER_NAMES = {"pixel-mnist": "mnist_pixel", "reset-gate": "reset_gate"}


def study_names() -> list[str]:
    """Return the studies under the current folder."""
    return list(_paths())


def _paths() -> dict[str, Path]:
    """Return the files that define studies, by the names of their folders."""
    found = {path.parent.name: path for file in (FORMER_FILE, FILE) for path in FOLDER.glob(f"*/{file}")}
    return dict(sorted(found.items()))


def existing_study_names() -> list[str]:
    """Return the studies under the current folder; raise if there is none."""
    if not (found := study_names()):
        raise RecurlabError(f"study: there is none here, which would be {FOLDER}/*/{FILE}")
    return found


def load_study(name: str) -> Study | SpeedStudy:
    """Return a study by the name of its folder under ``experiments/``, or by its former name.

    Raises:
        RecurlabError: if there is none, or its study.yaml has an unknown key, a wrong type or a
            name that is not there.
    """
    known = _paths()
    path = known.get(name) or known.get(FORMER_NAMES.get(name, ""))
    if path is None:
        raise unknown("study", name, known)
    content = read_yaml(path)
    try:
        plain: Any = _texts(OmegaConf.to_container(content, resolve=False))
        schema = next((found for key, found in SCHEMAS.items() if key in plain), Study)
        study: Any = OmegaConf.to_object(typed("", schema, OmegaConf.create(plain)))
    except RecurlabError as error:
        raise RecurlabError(f"{path}: {error}") from error
    study.path = path
    made: Study | SpeedStudy = study
    return made


def former_words(name: str, study: Study | SpeedStudy) -> list[str]:
    """Return a line for each former word by which a study is found: its name, and that of its file."""
    lines = [] if name == study.folder.name else [f"study={name!r}: is called {study.folder.name!r} now"]
    return lines + [f"{study.path}: is called {FILE} now"] * (study.path.name == FORMER_FILE)


def _texts(value: Any, keys: tuple[str, ...] = ()) -> Any:
    """Return the content of a YAML file with levels as texts, even 100, and ``${`` as it is, no interpolation."""
    if isinstance(value, dict):
        return {str(key): _texts(entry, (*keys, str(key))) for key, entry in value.items()}
    if isinstance(value, list):
        return [_texts(entry, keys) for entry in value]
    if isinstance(value, str):
        return value.replace("${", "\\${")
    named = keys[:1] in (("skip",), ("factors",)) or keys[:2] == ("adjust", "when") or "levels" in keys[2:3]
    return str(value) if named and isinstance(value, int | float) else value
