"""Data sets by their name on the hub of `datasets`, or local folders that `datasets` reads."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recurlab.data.cache import cache_folder
from recurlab.data.data import below
from recurlab.data.fingerprint import of_files
from recurlab.errors import RecurlabError, did_you_mean, one_line, path_of
from recurlab.files import write_link

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # owner/name, or the name of a canonical one
SPECIAL = re.compile(r"[*?[$]|::|://")  # in a path: what `datasets` does not take for itself
DATA_FILES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".zip", ".gz")


def load_hub(key: str, name: str, /, *, local: str | None = None, **options: Any) -> Any:
    """Return ``datasets.load_dataset(name, **options)``.

    With ``HF_HUB_OFFLINE=1`` the hub is not asked: what was fetched before is taken from the cache of `datasets`.

    Args:
        key: of the config, where the name stands.
        name: of the data set, or the path of a local folder; what looks like a path is not asked for on the hub.
        local: how to do without the hub, for the error's last words.
        options: as those of `datasets.load_dataset`.

    Raises:
        RecurlabError: if it can't be had, saying how to point at local files.
    """
    path = path_of(key, name)
    is_folder = bool(name) and path.is_dir()
    if path.is_file():
        raise RecurlabError(f"{key}={name!r}: this is a file; must be the folder of such files, or a name on the hub")
    if not is_folder and _is_path(name):
        raise RecurlabError(f"{key}={name!r}: there is no such folder{_nearest(path)}")
    if is_folder:
        check_folder(key, path)
    import datasets

    if is_folder:
        options["cache_dir"] = kept_apart(below(path))
    try:
        with _quiet():
            return datasets.load_dataset(str(path.absolute()) if is_folder else name, **options)
    except MemoryError:
        raise
    except Exception as error:  # the hub's client raises many kinds, all meaning that the data can't be had
        if is_folder:
            raise RecurlabError(f"{key}={name!r}: this folder can't be loaded ({one_line(error)})") from error
        offline = "HF_HUB_OFFLINE is set; " if datasets.config.HF_HUB_OFFLINE else ""
        advice = local or f"{key} may also be a local folder"
        raise RecurlabError(f"{key}={name!r}: can't be loaded ({offline}{one_line(error)}); {advice}") from error


def kept_apart(files: Mapping[str, Path]) -> str:
    """Return where `datasets` is to keep what it makes of files, by names that do not tell where they are.

    It is another folder for each content: by itself it goes by paths and times, which a changed file may still have.
    """
    import datasets

    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"recurlab-{of_files(files)}")


def check_folder(key: str, folder: Path) -> None:
    """Raise for a folder whose name `datasets` would read as a pattern, and so take the files of others."""
    if found := SPECIAL.search(str(folder.resolve())):
        raise RecurlabError(f"{key}={str(folder)!r}: a folder that is read whole can't have {found[0]!r} in its path")


def plain_name(file: Path) -> Path:
    """Return the path of a file as `datasets` takes it by its letters: that of a link where its own has a pattern."""
    path = file.absolute()
    if not SPECIAL.search(str(path)):
        return path
    try:
        link = cache_folder("links") / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}{path.suffix}"
        write_link(link, path)
        return link
    except (OSError, RuntimeError) as error:
        raise RecurlabError(f"{path}: needs another name, for the cache can't be written ({error})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the screen what the hub's client says of each of its attempts; the last one's error says it."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def _is_path(name: str) -> bool:
    """Return whether a name of nothing that exists was meant to be a path."""
    first, slash, _ = name.partition("/")
    return not HUB_NAME.fullmatch(name) or name.lower().endswith(DATA_FILES) or bool(slash and Path(first).is_dir())


def _nearest(path: Path) -> str:
    """Return the words that propose the folder beside a missing one whose name is most like it."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    return did_you_mean(path.name, beside, within=path.parent)
