"""YAML files of one's own beside the package's: found, listed, completed and trained."""

import os
import sys
from pathlib import Path

import pytest

import recurlab as package
from recurlab.cells import CELLS
from recurlab.completion import complete
from recurlab.compose import compose
from recurlab.plugins import configs_in
from recurlab.sources import configs_dir, groups
from recurlab.sweep.settings import parse_sweep, sweep_names

GLOBAL = "# @package _global_\n"
FILES = {
    "experiment/mine/long.yaml": f"{GLOBAL}defaults:\n  - /experiment/adding/gru\n  - override /cell: my_lstm\n"
    "  - override /data: short\n  - _self_\nmodel:\n  hidden_size: 7\n",
    "data/short.yaml": "name: adding\nlength: 9\nvalid_size: 20\n",
    "task/shorter.yaml": "# @package data\nname: adding\nlength: 5\n",
    "cell/my_lstm.yaml": "name: lstm\nrecurrent_activation: hardsigmoid\n",
    "cell/rnn.yaml": "name: rnn\nactivation: relu\n",
    "optimizer/quick.yaml": "defaults: [adam]\nlr: 0.125\n",
    "sweep/rates.yaml": "space:\n  optimizer.lr: [0.1, 0.2]\ntrials: 2\n",
    "elsewhere/x.yaml": "a: 1\n",
}


def write(folder: Path, files: dict[str, str] = FILES) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(params=["./configs", "--config-dir"])
def own(request, tmp_path, monkeypatch):
    """The user's folder, in the current one or named."""
    monkeypatch.chdir(tmp_path)
    if request.param == "./configs":
        yield write(tmp_path / "configs")
        return
    write(tmp_path / "configs", {"data/unseen.yaml": "name: adding\n"})
    with configs_in("it's mine/of yours"):
        yield write(tmp_path / "it's mine" / "of yours")


def test_an_experiment_is_made_of_parts_of_both(own):
    config, resolved = compose(["experiment=mine/long"])
    assert (config.data.length, config.data.valid_size) == (600, 20)  # what the experiment says wins
    assert (config.cell.recurrent_activation, config.model.hidden_size) == ("hardsigmoid", 7)
    assert (resolved.scheduler.name, config.experiment) == ("cosine", "mine/long")


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [("data=short", "data.length", 9), ("data=shorter", "data.length", 5), ("task=shorter", "data.length", 5),
     ("cell=my_lstm", "cell.recurrent_activation", "hardsigmoid"), ("optimizer=quick", "optimizer.lr", 0.125),
     ("cell=rnn", "cell.activation", "relu")],
)  # fmt: skip
def test_an_option_of_ones_own_is_chosen(own, word, key, value):
    config: object = compose([word])[0]
    for name in key.split("."):
        config = getattr(config, name)
    assert config == value


def test_they_are_listed_and_completed(own):
    found = groups()
    assert {"short", "shorter", "adding"} <= {*found["data"]}
    assert "unseen" not in found["data"]
    assert "elsewhere" not in found
    assert complete("experiment=mi") == ["experiment=mine/long"]
    assert "cell.recurrent_activation=" in complete("cell.", ["experiment=mine/long"])


def test_a_sweep_of_ones_own_is_chosen(own):
    assert {"rates", "default", "learning_rate"} == {*sweep_names()}
    assert parse_sweep(["sweep=rates"])[0].trials == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [("experiment/adding/gru.yaml", ["experiment=adding/gru"]), ("data/adding.yaml", ["data=adding"]),
     ("task/adding.yaml", ["data=adding"]), ("sweep/learning_rate.yaml", ["sweep=learning_rate"])],
)  # fmt: skip
def test_a_name_that_the_package_has_too_is_refused_where_it_is_asked_for(own, path, words):
    write(own, {path: "trials: 3\n", "train.yaml": "a: 1\n", "model/plain.yaml": "a: 1\n"})
    group, _, name = words[0].partition("=")
    with pytest.raises(package.RecurlabError, match=f"{group}='{name}': recurlab has one of this name; .*{path}"):
        (parse_sweep if group == "sweep" else compose)(words)
    config, _ = compose(["data=copy_memory"])  # nothing else of a stranger's folder comes in unasked
    assert (config.model.hidden_size, config.cell.reset) == (128, "after")


def test_a_copy_of_the_packages_file_is_no_other_one(own):
    name = "experiment/adding/gru.yaml"
    write(own, {name: (configs_dir() / name).read_text()})
    assert compose(["experiment=adding/gru"])[0].data.length == 600


def test_the_folder_of_a_checkout_is_not_of_a_user(monkeypatch):
    monkeypatch.chdir(configs_dir().parent)
    assert compose(["experiment=adding/gru"])[0].data.length == 600


@pytest.mark.parametrize("command", ["train", "explain", "sweep"])
def test_a_folder_that_is_not_there_is_said_in_a_line(recurlab, command, tmp_path):
    code, out, said = recurlab(command, "--config-dir", "nowhere", "data=adding")
    assert (code, out) == (2, "")
    assert said == f"recurlab: --config-dir={str(tmp_path / 'nowhere')!r}: there is no such folder\n"


def test_help_and_completion_list_them(recurlab, tmp_path):
    write(tmp_path / "own")
    assert "| short | shorter |" in recurlab("train", "--help", "--config-dir", "own")[1]
    assert recurlab("_complete", "recurlab train --config-dir=own data=sh")[1] == "data=short\ndata=shorter\n"
    assert "short" not in recurlab("_complete", "recurlab train data=")[1]
    assert "RECURLAB_CONFIG_DIR" not in os.environ


PLUGIN = """
from dataclasses import dataclass
import recurlab, torch

@recurlab.register_cell("mine")
@dataclass(frozen=True)
class Mine(recurlab.Cell):
    rate: float = 0.5
    gates = ("hidden",)
    def step(self, x, h, recur):
        return h + self.rate * (torch.tanh(x.hidden + recur.hidden(h)) - h)
"""
STUDY = """
title: Mine
question: Which rate?
metric: test/loss
overrides: [experiment=own, {quick}]
factors: {{rate: {{slow: [cell.rate=0.25], fast: [cell.rate=0.75]}}}}
scales: {{cpu: {{seeds: [0]}}}}
figure: {{x: rate}}
"""


@pytest.fixture
def mine(recurlab, quick, tmp_path, monkeypatch):
    """Run command lines in a folder that holds nothing but a plugin, an experiment, data and a study of ones own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path, {
        "mine.py": PLUGIN,
        "configs/experiment/own.yaml": f"{GLOBAL}defaults:\n  - override /cell: mine\n  - override /data: short\n"
        "plugins: [mine]\n",
        "configs/data/short.yaml": FILES["data/short.yaml"],
        "experiments/rates/study.yaml": STUDY.format(quick=", ".join(f"'{word}'" for word in quick)),
    })  # fmt: skip

    def command(*words: str) -> str:
        code, out, said = recurlab(*words)
        assert code == 0, said
        return out

    yield command
    sys.modules.pop("mine", None)
    CELLS._entries.pop("mine", None)


def test_an_empty_folder_with_a_plugin_and_an_experiment_trains(mine, quick, tmp_path):
    mine("train", "experiment=own", *quick)
    assert len([*tmp_path.glob("runs/own/*/result.json")]) == 1


@pytest.mark.slow
def test_a_grid_a_study_and_a_sweep_of_ones_own(mine, quick, tmp_path):
    mine("train", "-m", "experiment=own", "cell.rate=0.25,0.5", *quick)
    results = [*tmp_path.glob("runs/own/*/result.json")]
    mine("train", "experiment=own", "cell.rate=0.25", "resume=auto", *quick)
    assert len(results) == 2 == len([*tmp_path.glob("runs/own/*/result.json")])
    assert "Mine(rate=0.5)" in mine("explain", "experiment=own")
    mine("study", "run", "rates")
    assert (tmp_path / "experiments" / "rates" / "results.csv").read_text().count("finished") == 2
    mine("sweep", "experiment=own", "sweep.space={cell.rate: [0.1,0.9]}", "sweep.trials=2", "sweep.workers=2", *quick)
    for command in ("evaluate", "report"):
        mine(command, str(results[0].parent), "plugins=[mine]")
