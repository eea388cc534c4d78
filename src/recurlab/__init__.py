"""recurlab: a laboratory for recurrent networks.

The public names are imported on first use, so that the command line can check a config without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurlab.cells.build import register_cell
    from recurlab.cells.cell import Cell
    from recurlab.data import register_benchmark
    from recurlab.data.benchmark import Arrays, Benchmark
    from recurlab.errors import RecurlabError
    from recurlab.layers.rnn import RNN
    from recurlab.results.runs import load_run

__version__ = "0.1.0"

_PUBLIC = {
    "RNN": "recurlab.layers.rnn",
    "Arrays": "recurlab.data.benchmark",
    "Benchmark": "recurlab.data.benchmark",
    "Cell": "recurlab.cells.cell",
    "RecurlabError": "recurlab.errors",
    "load_run": "recurlab.results.runs",
    "register_benchmark": "recurlab.data",
    "register_cell": "recurlab.cells.build",
}

__all__ = [
    "RNN",
    "Arrays",
    "Benchmark",
    "Cell",
    "RecurlabError",
    "load_run",
    "register_benchmark",
    "register_cell",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'recurlab' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
