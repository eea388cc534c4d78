"""Run by scripts/tensorflow_check: TensorFlow's own cells beside ours, with weights from their checkpoint."""

import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import numpy as np
import tensorflow as tf
import torch

from recurlab.interop import from_arrays, read_file

v1 = tf.compat.v1
v1.logging.set_verbosity(v1.logging.ERROR)
T, B, FEATURES, H = 50, 8, 13, 24
LIMIT = 1e-12  # in float64
CELLS = {
    "BasicRNNCell": ("rnn", lambda: v1.nn.rnn_cell.BasicRNNCell(H, dtype="float64")),
    "GRUCell": ("gru", lambda: v1.nn.rnn_cell.GRUCell(H, dtype="float64")),
    "LSTMCell": ("lstm", lambda: v1.nn.rnn_cell.LSTMCell(H, dtype="float64")),
}
FORMS = {
    "one layer": lambda cell, x: v1.nn.dynamic_rnn(cell(), x, time_major=True, dtype=tf.float64)[0],
    "two layers": lambda cell, x: v1.nn.dynamic_rnn(
        v1.nn.rnn_cell.MultiRNNCell([cell(), cell()]), x, time_major=True, dtype=tf.float64
    )[0],
    "both directions": lambda cell, x: tf.concat(
        v1.nn.bidirectional_dynamic_rnn(cell(), cell(), x, time_major=True, dtype=tf.float64)[0], axis=2
    ),
}


def difference(cell, make, form, folder):
    """Return the greatest difference of the outputs, with weights that are not what they start as."""
    x = np.random.default_rng(0).normal(size=(T, B, FEATURES))
    with tf.Graph().as_default(), v1.Session() as session:
        output = form(make, tf.constant(x))
        rng = np.random.default_rng(1)
        for variable in v1.global_variables():
            variable.load(rng.normal(size=variable.shape, scale=0.3), session)
        wanted = session.run(output)
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    layer = from_arrays(read_file(folder / "model.ckpt"), "tensorflow", cell=cell)
    with torch.no_grad():
        return float(np.abs(layer(torch.from_numpy(x))[0].numpy() - wanted).max())


worst = 0.0
for name, (cell, make) in CELLS.items():
    for title, form in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = difference(cell, make, form, Path(folder))
        worst = max(worst, found)
        print(f"{name}, {title}: {found:.1e}")
print(f"TensorFlow {tf.__version__}, {len(CELLS) * len(FORMS)} cases: at most {worst:.1e}")
sys.exit(worst > LIMIT)
