"""Runs of tiny problems that are stopped after a step, and what is the same of two of them."""

import json
import shutil
import signal
from pathlib import Path

import torch

from command_process import only_run

TOYS = Path(__file__).parents[1] / "training" / "toy_problems.py"
QUICK = [
    "plugins=[toy_problems,stopper]", "model.hidden_size=5", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "optimizer=sgd",
]  # fmt: skip
PROBLEMS = {
    "classification": ["trainer.check_val_every_n_epoch=2"],
    "labelling": ["loss.ar=0.1", "loss.tar=0.1"],
    "multilabel": ["model=batchnorm", "model.num_layers=2", "scheduler=step", "scheduler.every=1"],
    "regression": ["trainer.precision=64-true", "optimizer=adam", "scheduler=plateau", "scheduler.patience=0"],
    "language": ["model.stateful=true", "model.zoneout=0.2"],
    "language, random_bptt: true": ["model.stateful=true", "optimizer=adam", "cell=lstm", "model.output_dropout=0.3"],
}
LANGUAGE = ["data={name: toy_language}", *PROBLEMS["language"], "trainer.max_epochs=3"]
STOPPER = """
import os, signal
from recurlab.problems.problem import Problem

def on_train_batch_end(self, *batch):
    if str(self.global_step) == os.environ.get("STOP_AT"):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

Problem.on_train_batch_end = on_train_batch_end
"""


def enter(folder, monkeypatch):
    """Go into a folder that has the plugins."""
    shutil.copy(TOYS, folder)
    (folder / "stopper.py").write_text(STOPPER)
    monkeypatch.chdir(folder)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same(found, wanted):
    for name in ("best", "last"):
        ours, theirs = weights(found.checkpoints / f"{name}.ckpt"), weights(wanted.checkpoints / f"{name}.ckpt")
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            assert torch.equal(ours[key], weight), key
    results = [json.loads(run.result.read_text()) for run in (found, wanted)]
    for key in ("metrics", "steps", "epochs"):
        assert results[0][key] == results[1][key], key
    assert found.metrics.read_text() == wanted.metrics.read_text()


def stopped(train, monkeypatch, step, number=signal.SIGTERM, words=LANGUAGE):
    """Train until a signal comes after a step, and return the exit code, the error output and the run."""
    with monkeypatch.context() as patch:
        patch.setenv("STOP_AT", str(step))
        patch.setenv("SIGNAL", str(int(number)))
        code, err = train(*QUICK, *words, "resume=auto")
    return code, err, only_run("runs")
