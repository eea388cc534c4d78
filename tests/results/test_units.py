"""What a regression learns is standardised; what it says is in the units of the table."""

import json

import numpy as np
import pytest
import torch

import recurlab as package
from recurlab.data.dataset import Dataset
from recurlab.results.runs import evaluate
from recurlab.training.run_dir import RunDir

QUICK = [
    "data=dataset", "data.sequence=x", "data.label=y", "data.problem=regression", "data.batch_size=8", "backend=eager",
    "model.hidden_size=6", "optimizer.lr=0.01", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path, outputs=1, count=60):
    """Write sequences of small numbers whose targets are large, each of another size; the last one never changes."""
    rng = np.random.default_rng(0)
    rows = []
    for values in rng.normal(size=(count, 5)):
        targets = [40_000 + 3_000 * values.sum(), 0.001 * values[-1], 7.25][:outputs]
        rows.append({"x": values.tolist(), "y": targets if outputs > 1 else targets[0]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def only(folder):
    (status,) = folder.rglob("status.json")
    return RunDir.open(status.parent)


def test_predictions_and_metrics_are_in_the_units_of_the_targets(recurlab, tmp_path):
    write(tmp_path / "t.jsonl", outputs=3)
    code, _, errors = recurlab("train", *QUICK, "data.path=t.jsonl", "trainer.max_epochs=25")
    assert code == 0, errors
    run = only(tmp_path)
    result = json.loads(run.result.read_text())
    data = Dataset(path="t.jsonl", sequence="x", label="y", problem="regression")
    train, test = data.split("train", 0, 0), data.split("test", 0, 0)
    for (mean, deviation), column in zip(json.loads(run.facts.read_text())["units"], train.targets.T, strict=True):
        known = column.astype(np.float64)
        assert (mean, deviation) == pytest.approx((known.mean(), known.std() if np.ptp(known) else 1.0))
    model = package.load_run(run.path)
    with torch.no_grad():
        said = model(torch.from_numpy(test.inputs.reshape(-1, 5, 1))).numpy()
    errors = said.astype(np.float64) - test.targets
    assert result["metrics"]["test/mse"] == pytest.approx((errors**2).mean(), rel=1e-5)
    of_mean = test.targets - train.targets.astype(np.float64).mean(axis=0)
    assert result["chance"]["mse"] == pytest.approx((of_mean**2).mean(), rel=1e-6)
    assert result["metrics"]["test/mse"] < result["chance"]["mse"] / 2
    scale = [deviation for _, deviation in json.loads(run.facts.read_text())["units"]]
    assert result["metrics"]["test/loss"] == pytest.approx(((errors / scale) ** 2).mean(), rel=1e-4)
    measured = {name: result["metrics"][name] for name in ("test/loss", "test/mse")}
    assert evaluate(run.path, []) == measured
    write(tmp_path / "other.jsonl", outputs=3, count=40)  # of another mean: the model keeps its own
    data = Dataset(path="other.jsonl", sequence="x", label="y", problem="regression")
    test = data.split("test", 0, 0)
    with torch.no_grad():
        errors = model(torch.from_numpy(test.inputs.reshape(-1, 5, 1))).numpy() - test.targets
    assert evaluate(run.path, ["data.path=other.jsonl"])["test/mse"] == pytest.approx((errors**2).mean(), rel=1e-5)


def test_a_run_goes_on_in_the_units_that_it_began_with_or_without(recurlab, tmp_path, monkeypatch):
    write(tmp_path / "t.jsonl")
    words = ["train", *QUICK, "data.path=t.jsonl"]
    with monkeypatch.context() as earlier:  # a version that learnt targets as they are, and kept no units
        earlier.setattr(Dataset, "units", ())
        assert recurlab(*words, "trainer.max_epochs=1", "output_dir=old")[0] == 0
        assert recurlab(*words, "trainer.max_epochs=2", "output_dir=whole")[0] == 0
    old, whole = only(tmp_path / "old"), only(tmp_path / "whole")
    content = json.loads(old.facts.read_text())
    assert content.pop("units") == []
    old.facts.write_text(json.dumps(content))
    before = json.loads(old.result.read_text())["metrics"]
    assert evaluate(old.path, [])["test/mse"] == before["test/mse"] == before["test/loss"] > 1e9
    assert package.load_run(old.path).units is None
    assert recurlab("train", f"resume={old.path}", "trainer.max_epochs=2")[0] == 0
    assert json.loads(old.result.read_text())["metrics"] == json.loads(whole.result.read_text())["metrics"]

    assert recurlab(*words, "trainer.max_epochs=1", "output_dir=new")[0] == 0
    new = only(tmp_path / "new")
    assert recurlab("train", f"resume={new.path}", "trainer.max_epochs=2")[0] == 0
    assert recurlab(*words, "trainer.max_epochs=2", "output_dir=straight")[0] == 0
    straight = only(tmp_path / "straight")
    assert json.loads(new.result.read_text())["metrics"] == json.loads(straight.result.read_text())["metrics"]
    assert evaluate(new.path, [])["test/mse"] == json.loads(new.result.read_text())["metrics"]["test/mse"]


def test_data_sets_of_published_results_learn_their_targets_as_they_are():
    from recurlab.data.adding import Adding

    assert Adding().units == ()
