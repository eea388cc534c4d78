"""What a recurrence computes: one step function in one small file per cell, and the tables of their names."""

from typing import Any

from recurlab.table import Table

CELLS = Table(
    "cell",
    {
        "rnn": "recurlab.cells.rnn:Elman",
        "gru": "recurlab.cells.gru:GRU",
        "lstm": "recurlab.cells.lstm:LSTM",
    },
)

# A preset is a cell under the name that the literature gives to a choice of its recurrence and options.
PRESETS: dict[str, dict[str, Any]] = {
    "indrnn": {"cell": "rnn", "recurrence": "diagonal", "activation": "relu"},
    "indy_gru": {"cell": "gru", "recurrence": "diagonal", "reset": "before"},
    "indy_lstm": {"cell": "lstm", "recurrence": "diagonal"},
    "cudnn_gru": {"cell": "gru", "recurrence": "dense", "reset": "after"},
}

RECURRENCES = ("dense", "diagonal", "block")
