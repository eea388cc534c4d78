"""A run that is killed again and again arrives where one arrives that never was: the same bits everywhere."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from command_process import only_run, run

HERE = Path(__file__).parent
COMMON = [
    "model.hidden_size=5", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "output_dir=runs",
]  # fmt: skip
LANGUAGE = [
    "cell=lstm", "model.stateful=true", "model.dropout=0.3", "model.num_layers=2", "model.input_dropout=0.1",
    "model.zoneout=[0.2,0.4]", "model.recurrent_dropout=0.1", "model.dropconnect=0.2", "optimizer=adam",
    "scheduler=cosine", "scheduler.over=5",
]  # fmt: skip
TOY_LANGUAGE = ["data={name: toy_language, random_bptt: true}", *LANGUAGE]
EVENTS = [
    "plugins=[toy_problems,event_killer]", "trainer.log_every_n_steps=1", "trainer.checkpoint_every_n_steps=7",
    "trainer.max_epochs=3",
]  # fmt: skip
SMALL = ["data.train_size=40", "data.valid_size=10", "data.test_size=10", "data.batch_size=4", "data.length=6"]
PROBLEMS = {
    "regression": ["data=adding", *SMALL, "model.dropconnect=0.2", "scheduler=plateau", "scheduler.patience=0"],
    "classification": [
        "data=dataset", "data.path=rows.csv", "data.sequence=x", "data.batch_size=4", "model=batchnorm",
        "trainer.check_val_every_n_epoch=2",
    ],
    "labelling": [
        "data=copy_memory", *SMALL, "cell=indrnn", "trainer.precision=64-true", "model.zoneout=0.2", "loss.ar=0.1",
    ],
    "multilabel": ["data=jsb", "data.dir=.", "data.verify=false", "data.batch_size=1", "model.dropout=0.2",
                   "model.num_layers=2", "optimizer=sgd", "optimizer.momentum=0.9"],
    "language": ["data=text", "data.dir=.", "data.batch_size=4", "data.eval_batch_size=2", "data.bptt=6", *LANGUAGE],
}  # fmt: skip
RUNS = 20  # of each problem, each of them killed twice


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_plugins(tmp_path, monkeypatch):
    for path in (HERE.parent / "training" / "toy_problems.py", HERE.parent / "training" / "killer.py"):
        shutil.copy(path, tmp_path)
    shutil.copy(HERE / "event_killer.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def write_data():
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    rows = [f"{' '.join(f'{x:.2f}' for x in rng.normal(size=rng.integers(2, 7)))},{'abc'[i % 3]}" for i in range(60)]
    Path("rows.csv").write_text("\n".join(["x,label", *rows]))
    Path("input.txt").write_text(" ".join(rng.choice(["ab", "bca", "c"], 120)))
    pieces = {part: np.empty((1, 12), object) for part in ("traindata", "validdata", "testdata")}
    for part in pieces.values():
        for place in range(12):
            part[0, place] = (rng.random((4 + place % 3, 88)) < 0.1).astype(np.uint8)
    savemat("JSB_Chorales.mat", pieces)


def assert_same(found, wanted):
    for name in ("best", "last"):
        ours, theirs = (torch.load(r.checkpoints / f"{name}.ckpt", weights_only=True) for r in (found, wanted))
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        for key, weight in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], weight), key
    results = [json.loads(r.result.read_text()) for r in (found, wanted)]
    for result in results:
        for key in ("seconds", "sequences_per_second", "steps_per_second"):
            del result[key]
    assert results[0] == results[1]
    assert found.metrics.read_text() == wanted.metrics.read_text()
    assert found.state == "finished"
    assert names_in(found.path) == names_in(wanted.path)


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def with_events(tmp_path, words, at, folder="runs"):
    """Train until an event, and return the exit code and how many events there were before."""
    log = tmp_path / "events.log"
    log.unlink(missing_ok=True)
    environment = {"EVENTS_OF": str(tmp_path / folder), "KILL_AT_EVENT": str(at)}
    code = run(tmp_path, ["train", *words, "resume=auto", f"output_dir={folder}"], **environment)
    return code, log.stat().st_size if log.exists() else 0


def kills_at_events(tmp_path, words, rng, runs, kills):
    """Kill runs at events that are spread over all there are, and compare each with one that never was."""
    words = [*COMMON, *EVENTS, *words]
    code, count = with_events(tmp_path, words, 0, "whole")
    assert code == 0
    wanted, killed = only_run(tmp_path / "whole"), 0
    for number in range(runs):
        shutil.rmtree("runs", ignore_errors=True)
        places = [
            1 + (number * count + rng.randrange(count)) // runs,
            *(rng.randint(1, count) for _ in range(kills - 1)),
        ]
        for place in places:
            code, _ = with_events(tmp_path, words, place)
            assert code in (-9, 0), places
            killed += code == -9
        assert with_events(tmp_path, words, 0)[0] == 0, places
        assert_same(only_run(tmp_path / "runs"), wanted)
    assert "recurlab: " not in Path("said").read_text()
    return count, killed


def test_kills_at_events_change_no_bit(tmp_path):
    words = [*TOY_LANGUAGE, "trainer.num_workers=2"]
    assert kills_at_events(tmp_path, words, random.Random(0), runs=1, kills=4)[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_two_kills_of_each_of_twenty_runs_change_no_bit(tmp_path, problem):
    write_data()
    count, killed = kills_at_events(tmp_path, PROBLEMS[problem], random.Random(problem), RUNS, kills=2)
    print(f"{problem}: {RUNS} runs of {count} events, {killed} SIGKILLs")
    assert killed > RUNS


def kills_of_two_processes(tmp_path, count, anew=False):
    """Kill one of two processes, the other one, or the one that has started them, in turn."""
    words = [
        *COMMON, *TOY_LANGUAGE, "plugins=[toy_problems,killer]", "trainer=ddp", "trainer.max_epochs=5",
        "trainer.log_every_n_steps=3", "trainer.checkpoint_every_n_steps=1",
    ]  # fmt: skip
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
