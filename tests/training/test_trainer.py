"""The trainer's options reach Lightning, and do what they say."""

import csv
import json
import time

import pytest
import torch

from recurlab import load_run
from recurlab.data.adding import Adding
from recurlab.data.module import DataModule
from recurlab.problems.problem import Problem
from recurlab.training import bar
from recurlab.training.trainer import without_denormals


def result_of(folder):
    (path,) = folder.rglob("result.json")
    return json.loads(path.read_text())


def test_limits_cut_every_split(recurlab, quick, tmp_path):
    limits = [f"trainer.limit_{part}_batches=1" for part in ("train", "val", "test")]
    assert recurlab("train", *limits, *quick)[0] == 0
    assert result_of(tmp_path)["steps"] == 2  # one a epoch


@pytest.mark.parametrize(("algorithm", "bound"), [("norm", 1e-3), ("value", 1e-4)])
def test_gradients_are_clipped_by_norm_or_by_value(recurlab, quick, monkeypatch, algorithm, bound):
    seen = []
    plain = Problem.optimizer_step

    def listening(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        plain(self, epoch, batch_idx, optimizer, optimizer_closure)
        seen.append(torch.cat([p.grad.flatten() for p in self.parameters()]))

    monkeypatch.setattr(Problem, "optimizer_step", listening)
    clip = [f"trainer.gradient_clip_val={bound}", f"trainer.gradient_clip_algorithm={algorithm}"]
    assert recurlab("train", *clip, *quick)[0] == 0
    sizes = [g.norm().item() if algorithm == "norm" else g.abs().max().item() for g in seen]
    assert sizes == pytest.approx([bound] * len(seen), rel=1e-3)


def test_the_scheduler_changes_the_rate_between_epochs(recurlab, quick, monkeypatch):
    rates = []
    plain = Problem.training_step

    def listening(self, batch, batch_idx):
        rates.append(self.optimizers().param_groups[0]["lr"])
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(Problem, "training_step", listening)
    overrides = ["scheduler=step", "scheduler.every=1", "scheduler.factor=0.5", "optimizer.lr=0.1"]
    assert recurlab("train", *overrides, *quick)[0] == 0
    assert rates == pytest.approx([0.1] * 5 + [0.05] * 5)


def test_the_tested_weights_are_those_of_the_best_validation(recurlab, quick, tmp_path):
    """With a rate that ruins the model the best epoch is an early one."""
    assert recurlab("train", "optimizer.lr=0.3", *quick, "trainer.max_epochs=5")[0] == 0
    (metrics,) = tmp_path.rglob("metrics.csv")
    with metrics.open() as file:
        epochs = [float(row["valid/mse"]) for row in csv.DictReader(file) if row["valid/mse"]]
    assert len(epochs) == 5
    assert min(epochs) < epochs[-1]
    assert result_of(tmp_path)["metrics"]["valid/mse"] == pytest.approx(min(epochs))
    model, data = load_run(metrics.parent), DataModule(Adding(length=7, valid_size=12), seed=0)
    data.setup()
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        mse = torch.nn.functional.mse_loss(model(batch.inputs), batch.targets).item()
    assert mse == pytest.approx(min(epochs), rel=1e-5)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_other_precisions_train(recurlab, quick, tmp_path, precision):
    assert recurlab("train", f"trainer.precision={precision}", *quick)[0] == 0
    assert result_of(tmp_path)["metrics"]["test/mse"] < 10


def test_a_run_that_is_interrupted_says_so(recurlab, quick, tmp_path, monkeypatch):
    def stop(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(Problem, "training_step", stop)
    code, _, err = recurlab("train", *quick)
    assert code == 130
    assert "interrupted; the run is kept in runs/adding/gru/" in err
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["state"] == "interrupted"


def test_a_progress_bar_shows_the_throughput(recurlab, quick):
    code, out, _ = recurlab("train", *quick, "trainer.enable_progress_bar=true")
    assert code == 0
    assert "sequences/s" in out
    assert "train/loss" in out


def test_a_run_does_not_wait_for_its_progress_bar(recurlab, quick, monkeypatch):
    monkeypatch.setattr(bar, "REFRESHES", 1 / 40)
    start = time.monotonic()
    code, out, _ = recurlab("train", *quick, "trainer.enable_progress_bar=true")
    assert code == 0
    assert "train/loss" in out
    assert time.monotonic() - start < 30


def test_numbers_too_small_to_matter_are_zero_while_a_run_lasts():
    tiny = torch.tensor([1e-40])
    with without_denormals():
        assert (tiny * 1).item() == 0
    assert (tiny * 1).item() > 0
