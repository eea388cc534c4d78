"""Runs and rows of earlier versions are found: their configs, written as they were then, keep their names."""

import pytest
import yaml
from omegaconf import OmegaConf

from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.rnn import Elman
from recurlab.compose import compose
from recurlab.config import load
from recurlab.errors import RecurlabError
from recurlab.training.job import digest

# The config.yaml of a run as version 0.1 wrote it, with {} for its cell.
CONFIG = """\
experiment: adding/gru
data: {{name: adding, batch_size: 32, eval_batch_size: 500, length: 100, markers: halves, train_size: 10000,
  valid_size: 1000, test_size: 1000}}
recurrence: {{name: null, heads: 1}}
cell: {{{}}}
backend: auto
model: {{encoder: auto, encoder_size: null, stack: plain, hidden_size: 128, num_layers: 1}}
optimizer: {{name: adam, lr: 0.001, weight_decay: 0.0, betas: [0.9, 0.999], eps: 1.0e-08}}
scheduler: {{name: constant}}
trainer: {{max_epochs: 10, max_steps: -1}}
logger: {{name: csv}}
launcher: {{name: local, jobs: 1}}
seed: 0
output_dir: runs
resume: null
loss: {{ar: 0.0, tar: 0.0, over_time: mean}}
plugins: []
"""
# How a cell was chosen, how it was written then and is now, what version 0.1 called its runs, and what it makes.
CELLS = {
    "cell=gru": ("name: gru, activation: null, reset: null, options: {}", "6488af0a5129", GRU()),
    "cell=gru cell.reset=after": ("name: gru, activation: null, reset: after, options: {}", "1e3f1971e441", GRU()),
    "cell=gru cell.activation=relu": (
        "name: gru, activation: relu, reset: null, options: {}", "4ce2c52a8f24", GRU("after", "relu")),
    "cell=lstm": ("name: lstm, activation: null, options: {}", "01e31b9acd0c", LSTM()),
    "cell.name=lstm": ("name: lstm, activation: null, reset: null, options: {}", "b1cd2769b82d", LSTM()),
    "cell=lstm cell.options.recurrent_activation=relu": (
        "name: lstm, activation: null, options: {recurrent_activation: relu}", "7fcd39beb2d9", LSTM("tanh", "relu")),
    "cell=rnn cell.activation=null": ("name: rnn, activation: null, options: {}", "e70b1a7b8406", Elman()),
    "cell=indrnn": ("name: indrnn, activation: null, options: {}", "09e920c5df48", Elman("relu")),
    "cell=indy_gru": ("name: indy_gru, activation: null, reset: null, options: {}", "0fc4d2aea25b", GRU("before")),
    "cell=cudnn_gru": ("name: cudnn_gru, activation: null, reset: null, options: {}", "d36b5fab3470", GRU()),
}  # fmt: skip


@pytest.mark.parametrize("words", CELLS)
def test_a_config_of_before_has_its_name_and_makes_the_same_cell(words):
    written, name, cell = CELLS[words]
    saved = OmegaConf.create(yaml.safe_load(CONFIG.format(written)))
    assert digest(saved) == name
    assert load(saved).cell == cell


@pytest.mark.parametrize("words", CELLS)
def test_the_same_words_make_a_config_of_the_same_name(words):
    written, _, cell = CELLS[words]
    config, resolved = compose(words.split())
    assert config.cell == cell
    assert digest(resolved) == digest(
        OmegaConf.merge(resolved, {"cell": None}, {"cell": yaml.safe_load(f"{{{written}}}")})
    )


def test_an_option_that_is_given_counts_and_one_that_is_left_open_does_not():
    names = [digest(compose(["cell=gru", *words])[1]) for words in ([], ["cell.reset=null"], ["cell.reset=after"])]
    assert names[0] == names[1] != names[2]  # as before: a study's rows name what they vary


def test_a_bag_of_options_that_is_none_is_said_in_a_line():
    saved = OmegaConf.create(yaml.safe_load(CONFIG.format("name: gru, activation: null, reset: null, options: [1]")))
    with pytest.raises(RecurlabError, match=r"cell.options=\[1\]: must be a mapping"):
        load(saved)
