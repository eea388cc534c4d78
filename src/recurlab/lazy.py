"""Public names that are imported on first use, so that the command line can check a config without importing torch."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any


def importer(
    package: str, public: Mapping[str, str], former: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        public: its public names, and the modules that they are in.
        former: names of before, and those that they have now.
    """

    def get(name: str) -> Any:
        if name in former:
            now = former[name]
            warnings.warn(f"{package}.{name} is called {package}.{now} now", FutureWarning, stacklevel=2)
            name = now
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(public[name]), name)

    return get
