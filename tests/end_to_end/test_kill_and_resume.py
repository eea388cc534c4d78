"""A run that is killed again and again arrives where one arrives that never was: the same bits everywhere."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from command_process import only_run, run

HERE = Path(__file__).parent
COMMON = [
    "plugins=[toy_problems,killer]", "model.hidden_size=5", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=3", "trainer.checkpoint_every_n_steps=1",
    "output_dir=runs",
]  # fmt: skip
LANGUAGE = [
    "data={name: toy_language, random_bptt: true}", "cell=lstm", "model.stateful=true", "model.dropout=0.3",
    "model.num_layers=2", "model.input_dropout=0.1", "model.zoneout=[0.2,0.4]", "model.recurrent_dropout=0.1",
    "model.dropconnect=0.2", "optimizer=adam", "scheduler=cosine", "scheduler.over=5", "trainer.max_epochs=5",
]  # fmt: skip
BATCHES = 4  # of an epoch


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_plugins(tmp_path, monkeypatch):
    for name in ("toy_problems", "killer"):
        shutil.copy(HERE.parent / "training" / f"{name}.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def assert_same(found, wanted):
    for name in ("best", "last"):
        ours, theirs = (torch.load(r.checkpoints / f"{name}.ckpt", weights_only=True) for r in (found, wanted))
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        for key, weight in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], weight), key
    results = [json.loads(r.result.read_text()) for r in (found, wanted)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["steps"] == results[1]["steps"]
    assert found.metrics.read_text() == wanted.metrics.read_text()
    assert found.state == "finished"


def test_ten_kills_change_no_bit(tmp_path):
    words = [*COMMON, *LANGUAGE, "trainer.num_workers=2"]
    assert run(tmp_path, ["train", *words, "output_dir=whole"]) == 0
    wanted = only_run(tmp_path / "whole")
    steps = json.loads(wanted.result.read_text())["steps"]
    rng = random.Random(0)
    places = sorted(rng.sample(range(1, steps + 1), 10))
    for step in places:
        assert run(tmp_path, ["train", *words, "resume=auto"], KILL_AT=f"{step}:0:self") == -9
    assert run(tmp_path, ["train", *words, "resume=auto"]) == 0
    assert_same(only_run(tmp_path / "runs"), wanted)


def kills_of_two_processes(tmp_path, count, anew=False):
    """Kill one of two processes, the other one, or the one that has started them, in turn."""
    words = [*COMMON, *LANGUAGE, "trainer=ddp", "trainer.max_epochs=5"]
    assert run(tmp_path, ["train", *words, "output_dir=whole"], anew=anew) == 0
    wanted = only_run(tmp_path / "whole")
    steps = json.loads(wanted.result.read_text())["steps"]
    for number, step in enumerate(sorted(random.Random(1).sample(range(1, steps + 1), count))):
        whom, code = [("1:self", 2), ("0:parent", -9), ("0:self", 2)][number % 3]
        assert run(tmp_path, ["train", *words, "resume=auto"], anew=anew, KILL_AT=f"{step}:{whom}") == code
    assert run(tmp_path, ["train", *words, "resume=auto"], anew=anew) == 0
    assert_same(only_run(tmp_path / "runs"), wanted)


def test_kills_of_two_processes_change_no_bit(tmp_path):
    kills_of_two_processes(tmp_path, 3)


@pytest.mark.slow
def test_ten_kills_of_two_processes_change_no_bit(tmp_path):
    kills_of_two_processes(tmp_path, 10, anew=True)
