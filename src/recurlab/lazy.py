"""Public names that are imported on first use, so that the command line can check a config without importing torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def importer(package: str, public: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        public: its public names, and the modules that they are in.
    """

    def get(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(public[name]), name)

    return get
