"""Users' modules, imported by name so that the cells and benchmarks they register are known."""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from recurlab.errors import RecurlabError, one_line


def import_plugins(names: Iterable[str]) -> None:
    """Import modules by name, from the installed packages or the current folder.

    Raises:
        RecurlabError: if one can't be imported.
    """
    here = str(Path.cwd())
    for name in names:
        if here not in sys.path:
            sys.path.append(here)  # a console script starts without it
        try:
            import_module(name)
        except RecurlabError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's module does, it is said in a line
            raise RecurlabError(
                f"plugins={name!r}: can't be imported from {here} or the installed packages: {one_line(error)}"
            ) from error
