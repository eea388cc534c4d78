"""The layers here that other packages have too, and whether one of them has a layer."""

from recurlab import RecurlabError
from recurlab.interop import to_arrays

OURS = {
    "rnn": {"cell": "rnn"}, "gru after": {"cell": "gru"}, "gru before": {"cell": "gru", "reset": "before"},
    "lstm": {"cell": "lstm"}, "indrnn": {"cell": "indrnn", "activation": "tanh"}, "indy_gru": {"cell": "indy_gru"},
    "indy_lstm": {"cell": "indy_lstm"}, "indy_gru after": {"cell": "indy_gru", "reset": "after"},
    "gru normalised": {"cell": "gru", "layer_norm": True}, "lstm normalised": {"cell": "lstm", "layer_norm": True},
}  # fmt: skip
BASE = {"indrnn": "rnn", "indy_gru": "gru", "indy_lstm": "lstm"}


def goes(layer, format):
    try:
        return bool(to_arrays(layer, format))
    except RecurlabError:
        return False
