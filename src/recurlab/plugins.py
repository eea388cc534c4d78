"""What a user brings: modules that register cells and data sets, imported by name, and a folder of YAML files."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from recurlab.errors import RecurlabError, one_line, shown

CONFIG_DIR = "RECURLAB_CONFIG_DIR"  # the environment variable of a folder of YAML files, for child processes too


@contextmanager
def configs_in(folder: str | None) -> Iterator[None]:
    """Let this process and its children find YAML files in a folder; None changes nothing."""
    before = os.environ.get(CONFIG_DIR)
    if folder is not None:
        os.environ[CONFIG_DIR] = str(Path(folder).absolute())
    try:
        yield
    finally:
        if folder is not None:
            os.environ.pop(CONFIG_DIR)
            if before is not None:
                os.environ[CONFIG_DIR] = before


def import_plugins(names: Sequence[str]) -> None:
    """Import modules by name, from the installed packages or the current folder.

    Raises:
        RecurlabError: if one can't be imported, or the names are no list of names.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        example = f", as plugins=[{names}]" if isinstance(names, str) else ""
        raise RecurlabError(f"plugins={shown(names)}: must be a list{example}")
    here = str(Path.cwd())
    for name in names:
        if not isinstance(name, str) or not name:
            raise RecurlabError(f"plugins={shown(name)}: must be the name of a module")
        if here not in sys.path:
            sys.path.append(here)  # a console script starts without it
        try:
            import_module(name)
        except RecurlabError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's module does, it is said in a line
            raise RecurlabError(
                f"plugins={shown(name)}: can't be imported from {here} or the installed packages: {one_line(error)}"
            ) from error
