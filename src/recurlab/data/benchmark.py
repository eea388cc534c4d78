"""The former name of `recurlab.data.data`, for users' data sets that were written for it."""

import warnings
from typing import Any

from recurlab.data import data

FORMER = {
    "Benchmark": "Data",
    "GeneratedBenchmark": "GeneratedData",
    "RaggedBenchmark": "RaggedData",
    "StreamBenchmark": "StreamData",
}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(data, FORMER.get(name, name))
    warnings.warn(f"{__name__}.{name} is now recurlab.data.data.{FORMER.get(name, name)}", FutureWarning, stacklevel=2)
    return found
