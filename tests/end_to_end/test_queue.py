"""A study's queue that is stopped or killed goes on to the same bits, and two at once share what there is to run."""

import csv
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from command_process import run, start
from recurlab.training.run_dir import RunDir

SWEEP = """\
title: A toy
question: Does it come out again?
scales:
  paper:
    seeds: [0, 1]
    overrides: ["plugins=[toy_study]", "data={name: toy_study}", backend=eager, trainer.max_epochs=10]
benchmarks:
  toy:
    metric: test/loss
    unit: squares
    models:
      GRU: {overrides: [experiment=adding/gru, "data={name: toy_study}", model.hidden_size=3], hours: 0.1}
      LSTM: {overrides: [experiment=adding/gru, "data={name: toy_study}", cell=lstm, model.hidden_size=3], hours: 2}
"""
PLUGIN = Path(__file__).parents[1] / "toy_study.py"
WORDS = ["study", "run", "toy", "--scale", "paper"]
RUNS = [("GRU", "0"), ("GRU", "1"), ("LSTM", "0")]


def make(folder):
    """Make a folder with the study, and return it."""
    study = folder / "experiments" / "toy"
    study.mkdir(parents=True)
    (study / "study.yaml").write_text(SWEEP)
    (study / "README.md").write_text("# A toy\n\n<!-- results:begin -->\n<!-- results:end -->\n")
    (study / "published.csv").write_text(
        "source,benchmark,model,metric,value,spread,epoch,note\nSomeone 2019,toy,GRU,test/loss,5,,,text\n"
    )
    shutil.copy(PLUGIN, folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder whose queue has run to its end undisturbed."""
    folder = make(tmp_path_factory.mktemp("whole"))
    assert run(folder, WORDS) == 0
    return folder


def rows_of(folder):
    with (folder / "experiments" / "toy" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def what_came(folder):
    """Return what the rows say but for the time that it took, and the weights of each run."""
    varying = ("seconds", "sequences_per_second", "date", "commit")
    rows = [{name: value for name, value in row.items() if name not in varying} for row in rows_of(folder)]
    weights = {
        path.parents[1].name: torch.load(path, weights_only=True)["state_dict"] for path in folder.rglob("best.ckpt")
    }
    return rows, weights


def wait_for(path, lines):
    deadline = time.monotonic() + 60
    while not path.is_file() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, "it does not begin"
        time.sleep(0.01)


def kill_jobs(folder):
    for pid in {line.split()[0] for line in (folder / "epochs").read_text().splitlines()}:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_queue_that_is_stopped_or_killed_at_any_moment_goes_on_to_the_same_bits(whole, tmp_path):
    stopped = make(tmp_path)
    rng, said = random.Random(), 0
    for how in ("told", "killed", "told", "vanished"):
        said += rng.randrange(2, 8)
        queue = start(stopped, [*WORDS, "launcher.jobs=1"])
        wait_for(stopped / "epochs", said)
        if how == "told":
            queue.terminate()
        else:
            queue.kill()
            if how == "vanished":
                kill_jobs(stopped)
        queue.join(60)
        assert queue.exitcode == (128 + signal.SIGTERM if how == "told" else -signal.SIGKILL), (
            stopped / "said"
        ).read_text()
        said = len((stopped / "epochs").read_text().splitlines())
    assert "ended by SIGTERM with all that was done kept; the same command goes on" in (stopped / "said").read_text()
    assert run(stopped, WORDS) == 0
    rows, weights = what_came(stopped)
    expected, wanted = what_came(whole)
    assert [(row["model"], row["seed"]) for row in rows] == RUNS
    assert rows == expected
    assert weights.keys() == wanted.keys()
    torch.testing.assert_close(weights, wanted, rtol=0, atol=0)
    said = (stopped / "epochs").stat().st_size
    assert run(stopped, WORDS) == 0
    assert (stopped / "epochs").stat().st_size == said  # nothing is run again


def test_two_queues_at_once_run_each_run_once(tmp_path):
    both = make(tmp_path)
    queues = [start(both, [*WORDS, "launcher.jobs=1"]) for _ in range(2)]
    for queue in queues:
        queue.join(120)
    assert [queue.exitcode for queue in queues] == [0, 0], (both / "said").read_text()
    assert [(row["model"], row["seed"], row["state"]) for row in rows_of(both)] == [(*one, "finished") for one in RUNS]
    epochs = Counter(line.split()[1] for line in (both / "epochs").read_text().splitlines())
    assert set(epochs.values()) == {len(RUNS)}  # each epoch of each run once
    assert all("continued" not in RunDir(path.parent).provenance.read_text() for path in both.rglob("status.json"))
    assert len({line.split()[0] for line in (both / "epochs").read_text().splitlines()}) == len(RUNS)


def test_the_committed_rows_are_enough_for_a_clean_clone(whole, tmp_path):
    """It begins with the first that is missing, and with the first seed of all before the second of any."""
    clone = make(tmp_path)
    lines = (whole / "experiments" / "toy" / "results.csv").read_text().splitlines(keepends=True)
    (clone / "experiments" / "toy" / "results.csv").write_text("".join(lines[:2]))  # GRU, seed 0
    assert run(clone, [*WORDS, "launcher.jobs=1"]) == 0
    begun = [line for line in (clone / "said").read_text().splitlines() if ": begins" in line]
    assert [line.split(":")[0] for line in begun] == ["toy LSTM seed 0", "toy GRU seed 1"]
    assert [row["job"] for row in rows_of(clone)] == [row["job"] for row in rows_of(whole)]
    assert run(clone, ["study", "status", "toy"]) == 0
    assert "toy: 3 runs at scale paper: 3 finished; about 0.0 core-hours to go" in (clone / "said").read_text()


def test_rows_whose_data_are_not_here_are_left_out_with_their_reason(tmp_path, monkeypatch):
    monkeypatch.delenv("RECURLAB_DATA", raising=False)
    poor = make(tmp_path)
    text = SWEEP.replace(
        '[experiment=adding/gru, "data={name: toy_study}", model.hidden_size=3]', "[experiment=jsb/gru]"
    )
    (poor / "experiments" / "toy" / "study.yaml").write_text(
        text.replace(', "data={name: toy_study}", backend', ", backend")
    )
    assert run(poor, WORDS) == 0
    for seed in (0, 1):
        assert f"recurlab: toy GRU seed {seed}: left out: data.dir=None: must be" in (poor / "said").read_text()
    assert [row["model"] for row in rows_of(poor)] == ["LSTM"]
