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

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # owner/name, or the name alone
SPECIAL = re.compile(r"[*?[$]|::|://")  # in a path: characters that `datasets` reads as a pattern
DATA_FILES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".zip", ".gz")


def load_hub(key: str, name: str, /, *, local: str | None = None, **options: Any) -> Any:
    """Return ``datasets.load_dataset(name, **options)``.

    With ``HF_HUB_OFFLINE=1`` nothing is downloaded; `datasets` reads its own cache.

    Args:
        key: of the config, whose value is the name.
        name: of the data set, or the path of a local folder; a name that looks like a path is not
            sought on the hub.
        local: how to do without the hub; ends the error.
        options: as those of `datasets.load_dataset`.

    Raises:
        RecurlabError: if it can't be loaded; the error says how to read local files instead.
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
    except Exception as error:  # the hub's client raises errors of many classes
        if is_folder:
            raise RecurlabError(f"{key}={name!r}: this folder can't be loaded ({one_line(error)})") from error
        offline = "HF_HUB_OFFLINE is set; " if datasets.config.HF_HUB_OFFLINE else ""
        advice = local or f"{key} may also be a local folder"
        raise RecurlabError(f"{key}={name!r}: can't be loaded ({offline}{one_line(error)}); {advice}") from error


def kept_apart(files: Mapping[str, Path]) -> str:
    """Return the cache folder for `datasets` when it reads files, a different one for each content.

    By itself `datasets` goes by paths and times, which a changed file may share with the file
    before.
    """
    import datasets

    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"recurlab-{of_files(files)}")


def check_folder(key: str, folder: Path) -> None:
    """Raise for a folder whose name `datasets` would read as a pattern that other folders match too."""
    if found := SPECIAL.search(str(folder.resolve())):
        raise RecurlabError(f"{key}={str(folder)!r}: a folder that is read whole can't have {found[0]!r} in its path")


def plain_name(file: Path) -> Path:
    """Return a path that `datasets` reads literally: a link's, where the file's own would be a pattern."""
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
    """Silence what the hub's client says of each attempt; the error of the last one is enough."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def _is_path(name: str) -> bool:
    """Return whether a name looks like the path of something that does not exist."""
    first, slash, _ = name.partition("/")
    return not HUB_NAME.fullmatch(name) or name.lower().endswith(DATA_FILES) or bool(slash and Path(first).is_dir())


def _nearest(path: Path) -> str:
    """Return the hint at the existing folder whose name is most like a missing one's."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    return did_you_mean(path.name, beside, within=path.parent)
