"""The tables of a user's own data set: files, a folder of them, or a name on the hub of `datasets`."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recurlab.data.data import below
from recurlab.data.delimited import SEPARATORS, read_delimited
from recurlab.data.files import readable, text_of
from recurlab.data.hub import check_folder, kept_apart, load_hub, plain_name
from recurlab.data.nesting import DEEPEST, deepest
from recurlab.errors import RecurlabError, did_you_mean, one_line, path_of, unknown

# The reader of `datasets` for each ending; CSV and TSV files are read here.
FORMATS = {".csv": "", ".tsv": "", ".parquet": "parquet", ".json": "json", ".jsonl": "json"}
LONGER = "Length of header or names"  # how pandas begins its error for a row longer than the header
POOLED = (".csv", ".tsv", ".parquet", ".jsonl")
# Names of splits that are tried where none is given.
ALSO = {"valid": ("valid", "validation", "val", "dev"), "test": ("test",)}


def open_tables(
    path: str, config: str | None, names: Mapping[str, str | None], note: Callable[[str], object]
) -> dict[str, Any]:
    """Return the rows of "train", and of "valid" and "test" where they have rows of their own.

    They are a `datasets.Dataset`, or a pyarrow Table for CSV and TSV files.

    Args:
        path: a file, a folder, or a name on the hub.
        config: of the data set on the hub.
        names: of each split there, or of its file in the folder; None for the usual name.
        note: called with each line that a reader of the log should know.

    Raises:
        RecurlabError: for a file that is missing or can't be read.
    """
    source = path_of("data.path", path)
    if config is not None and (source.is_file() or source.suffix.lower() in FORMATS):
        raise RecurlabError(f"data.config={config!r}: is for data sets of the hub, and data.path={path!r} is a file")
    if source.is_file():
        for split, name in names.items():
            if name not in (None, "train"):
                raise RecurlabError(
                    f"data.{split}={name!r}: data.path={path!r} is one file; must be the folder of both"
                )
        return {"train": _read("path", [source], note)}
    if source.is_dir():
        files = {split: _files(source, split, name) for split, name in names.items()}
        if files["train"]:
            for split, name in names.items():
                if name is not None and not files[split]:
                    raise _no_file(split, source, name)
            return {split: _read(split, found, note) for split, found in files.items() if found}
        if any(file.suffix.lower() in POOLED for file in source.iterdir()) and not [*source.glob("*train*")]:
            raise _no_file("train", source, str(names["train"]))  # `datasets` would take them all for training
    elif is_local(path):
        raise _nothing(path, source)
    return _splits(_load(path, config), names)


def is_local(path: str) -> bool:
    """Return whether a path is meant for files, existing or not, and not for a name on the hub."""
    local = path.startswith((".", "/", "~")) or path.count("/") > 1 or _is_file_name(path)
    return local or path_of("data.path", path).exists()


def local_files(path: str, names: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the files that `open_tables` reads, by names that are the same wherever the files are.

    Raises:
        RecurlabError: for a file that is missing.
    """
    source = path_of("data.path", path)
    if source.is_file():
        return {"train": source}
    if not source.is_dir():
        raise _nothing(path, source)
    files = {split: _files(source, split, name) for split, name in names.items()}
    if not files["train"]:
        return below(source)
    return {f"{split} {number}": file for split, found in files.items() for number, file in enumerate(found)}


def _nothing(path: str, source: Path) -> RecurlabError:
    return RecurlabError(f"data.path={path!r}: there is no such file or folder{_nearest(source)}")


def _files(folder: Path, split: str, name: str | None) -> list[Path]:
    """Return the files of a split, [] if the folder has none by its names."""
    for each in (name,) if name is not None else ALSO[split]:
        if (folder / each).is_file():
            return [folder / each]
        wanted = folder / each  # which may be in a folder below
        beside = wanted.parent.iterdir() if wanted.parent.is_dir() else ()
        found = [file for file in beside if file.stem == wanted.name and file.suffix.lower() in FORMATS]
        if len(found) > 1:
            names = sorted(file.name for file in found)
            raise RecurlabError(f"data.{split}={each!r}: must be one of {', '.join(names)}")
        pattern = "*" in each or "?" in each
        if pattern and not found:
            found = _matching(split, folder, each)
        if found:
            return found
        if _is_file_name(each) or pattern:
            raise _no_file(split, folder, each)
    return []


def _matching(split: str, folder: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern of * and ?; a bracket stands for itself."""
    try:
        return sorted(file for file in folder.glob(pattern.replace("[", "[[]")) if file.is_file())
    except (ValueError, NotImplementedError) as error:  # ** within a name, or the pattern of a whole path
        raise RecurlabError(f"data.{split}={pattern!r}: no pattern of files ({one_line(error)})") from error


def _no_file(split: str, folder: Path, name: str) -> RecurlabError:
    there = sorted(file.name for file in folder.iterdir())
    return RecurlabError(f"data.path={str(folder)!r}: {unknown(f'data.{split}', name, there)}")


def _is_file_name(name: str) -> bool:
    return Path(name).suffix.lower() in (*FORMATS, ".txt")


def _nearest(path: Path) -> str:
    there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, there, within=path.parent)


def _splits(tables: Any, names: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the splits of a `datasets.DatasetDict` under our own names."""
    found = {}
    for split, name in names.items():
        if name is not None and name not in tables:
            raise unknown(f"data.{split}", name, map(str, tables))
        chosen = next((each for each in ((name,) if name is not None else ALSO[split]) if each in tables), None)
        if chosen is not None:
            found[split] = tables[chosen]
    return found


def _read(key: str, files: Sequence[Path], note: Callable[[str], object]) -> Any:
    """Return the rows of files of one format, one file after another."""
    ending = files[0].suffix.lower()
    for file in files:
        if file.suffix.lower() == ".txt":
            raise RecurlabError(f"data.{key}={str(file)!r}: a text has no labels; for texts without there is data=text")
        if file.suffix.lower() not in FORMATS:
            raise unknown(f"data.{key}={str(file)!r}: ending", file.suffix, FORMATS)
        if file.suffix.lower() != ending:
            raise RecurlabError(f"data.{key}={str(file)!r}: must be of the same format as {files[0].name}")
        with readable(file) as content:
            empty = not content.read(1)
        if empty:
            raise RecurlabError(f"data.{key}={str(file)!r}: the file is empty")
        if ending != ".parquet":
            _check_utf8(file)
        if FORMATS[ending] == "json" and deepest(file) > DEEPEST:
            raise RecurlabError(f"data.{key}={str(file)!r}: lists in lists of more than {DEEPEST} levels")
    if ending in SEPARATORS:
        return read_delimited(key, files, note)
    builder, options = FORMATS[ending], dict[str, Any]()
    if builder == "json":  # in one piece: else the first 10 MB would settle whether the rest may have fractions
        options = {"chunksize": max(file.stat().st_size for file in files) + 1}
    given, kept = {"train": _named(files)}, kept_apart({str(number): file for number, file in enumerate(files)})
    with _quiet():
        what = f"data.{key}={str(files[0])!r}"
        return _guarded(what, builder, data_files=given, cache_dir=kept, **options)["train"]


def _named(files: Sequence[Path]) -> Any:
    """Return paths that `datasets` reads literally and not as patterns."""
    from datasets.data_files import DataFilesList

    stats = [file.stat() for file in files]  # the key of the cache of `datasets`
    return DataFilesList([str(plain_name(file)) for file in files], [(s.st_mtime_ns, s.st_size) for s in stats])


def _check_utf8(file: Path) -> None:
    try:
        with file.open(encoding="utf-8") as text:
            while text.read(1 << 20):
                pass
    except (UnicodeDecodeError, OSError):
        text_of(file)  # raises an error that names the wrong byte


def _load(path: str, config: str | None) -> Any:
    """Return a data set of the hub, or a folder that `datasets` understands."""
    import datasets

    source = path_of("data.path", path)
    if (source / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(source))
    if source.is_dir():
        check_folder("data.path", source)
        return _guarded(f"data.path={path!r}", str(source), config, cache_dir=kept_apart(below(source)))
    return load_hub("data.path", path, local="there is no such file or folder either", name=config)


def _guarded(what: str, *arguments: Any, **options: Any) -> Any:
    import datasets

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=LONGER)  # otherwise values would be lost
            return datasets.load_dataset(*arguments, **options)
    except Exception as error:  # the library raises errors of many classes
        generating = isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__ is not None
        reason = one_line(error.__cause__ if generating else error) or type(error).__name__
        if reason.startswith(LONGER):
            reason = "the rows have more values than column names; a sequence with commas needs quotes"
        raise RecurlabError(f"{what}: can't be read ({reason:.300})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the bars and messages of `datasets` off the terminal."""
    import datasets

    shown, level = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()
