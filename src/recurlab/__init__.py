"""recurlab: a laboratory for recurrent networks."""

from typing import TYPE_CHECKING

from recurlab.lazy import importer

if TYPE_CHECKING:
    from recurlab.cells.build import register_cell
    from recurlab.cells.cell import Cell
    from recurlab.data import register_benchmark
    from recurlab.data.benchmark import Arrays, Benchmark
    from recurlab.deploy.export import export
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
    "export": "recurlab.deploy.export",
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
    "export",
    "load_run",
    "register_benchmark",
    "register_cell",
]

__getattr__ = importer(__name__, _PUBLIC)
