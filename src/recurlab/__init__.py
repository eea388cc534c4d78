"""recurlab: a laboratory for recurrent networks."""

from typing import TYPE_CHECKING

from recurlab.lazy import importer

if TYPE_CHECKING:
    from recurlab.cells.build import register_cell
    from recurlab.cells.cell import Cell
    from recurlab.data import register_data
    from recurlab.data.data import Arrays, Data
    from recurlab.deploy.export import export
    from recurlab.errors import RecurlabError
    from recurlab.layers.rnn import RNN
    from recurlab.results.runs import load_run

__version__ = "0.1.0"

_PUBLIC = {
    "RNN": "recurlab.layers.rnn",
    "Arrays": "recurlab.data.data",
    "Data": "recurlab.data.data",
    "Cell": "recurlab.cells.cell",
    "RecurlabError": "recurlab.errors",
    "export": "recurlab.deploy.export",
    "load_run": "recurlab.results.runs",
    "register_data": "recurlab.data",
    "register_cell": "recurlab.cells.build",
}

__all__ = [
    "RNN",
    "Arrays",
    "Cell",
    "Data",
    "RecurlabError",
    "export",
    "load_run",
    "register_cell",
    "register_data",
]

_FORMER = {"Benchmark": "Data", "register_benchmark": "register_data"}

__getattr__ = importer(__name__, _PUBLIC, _FORMER)
