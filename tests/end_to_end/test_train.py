import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

import recurlab as package


def run_of(folder: Path) -> Path:
    (status,) = folder.rglob("status.json")
    return status.parent


@pytest.mark.usefixtures("pictures")
def test_a_run_leaves_its_config_provenance_metrics_checkpoints_result_and_picture(recurlab, quick, tmp_path, fastest):
    code, out, err = recurlab("train", "experiment=adding/indrnn", "seed=3", *quick)
    assert (code, err) == (0, "")
    run = run_of(tmp_path / "runs" / "adding" / "indrnn")
    status = json.loads((run / "status.json").read_text())
    assert {**status, "job": ""} == {"format": 3, "state": "finished", "reason": "", "job": ""}
    assert len(status["job"]) == 12

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed"] == 3
    assert config["model"]["constraint"]["recurrent"]["steps"] == 7  # interpolations are resolved

    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["seed"] == 3
    assert provenance["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert (run / "diff.patch").is_file()

    result = json.loads((run / "result.json").read_text())
    assert result["backends"] == [fastest, fastest]
    assert result["steps"] == 10  # 2 epochs of 5 batches
    assert result["epochs"] == 2
    assert result["sequences_per_second"] > 0
    assert result["steps_per_second"] == pytest.approx(7 * result["sequences_per_second"])
    assert f"test/mse {result['metrics']['test/mse']:.6g}  (chance 0.167)" in out
    assert str(run.relative_to(tmp_path) / "curves.png") in out
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")

    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["train/loss"]]) == 2  # every fifth step
    valid = [float(row["valid/mse"]) for row in rows if row["valid/mse"]]
    assert len(valid) == 2  # every epoch
    assert result["metrics"]["valid/mse"] == pytest.approx(min(valid))
    assert [float(row["test/mse"]) for row in rows if row["test/mse"]] == [result["metrics"]["test/mse"]]  # once
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_the_same_seed_gives_the_same_run_and_another_seed_another(recurlab, quick, tmp_path):
    def metrics(name: str, seed: int) -> dict[str, float]:
        arguments = ["model.zoneout=0.2", "model.dropconnect=0.1", f"seed={seed}", f"output_dir={name}", *quick]
        assert recurlab("train", *arguments)[0] == 0
        return json.loads((run_of(tmp_path / name) / "result.json").read_text())["metrics"]

    first = metrics("a", 5)
    assert metrics("b", 5) == first
    assert metrics("c", 6) != first


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_the_loaded_model_predicts_bit_for_bit_what_was_tested(recurlab, quick, tmp_path, monkeypatch, precision):
    tested = []
    from recurlab.problems.problem import Problem

    plain = Problem.test_step

    def listening(self, batch, batch_idx):
        tested.append((batch, self.model(batch.inputs, batch.lengths)))
        plain(self, batch, batch_idx)

    monkeypatch.setattr(Problem, "test_step", listening)
    assert (
        recurlab("train", "cell=lstm", "model.num_layers=2", "model.zoneout=0.1", "model.dropout=0.3", *quick)[0] == 0
    )
    model = package.load_run(run_of(tmp_path))
    assert not model.training
    assert len(tested) == 3  # 13 sequences by 5
    with torch.no_grad():
        for batch, outputs in tested:
            assert torch.equal(model(batch.inputs, batch.lengths), outputs)


def test_evaluate_repeats_the_test_metrics_exactly(recurlab, quick, tmp_path):
    assert recurlab("train", *quick)[0] == 0
    run = run_of(tmp_path)
    code, out, _ = recurlab("evaluate", str(run))
    assert code == 0
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    assert out.splitlines() == [f"{name} {metrics[name]:.6g}" for name in ("test/loss", "test/mse")]


def test_evaluate_takes_several_runs(recurlab, quick, tmp_path):
    assert recurlab("train", "-m", "seed=0,1", *quick)[0] == 0
    runs = sorted(str(path.parent) for path in tmp_path.rglob("result.json"))
    code, out, _ = recurlab("evaluate", *runs)
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith("test/")] == runs


@pytest.mark.parametrize("override", ["data.length=${nope}", "data.dir={"])
def test_evaluate_says_in_a_line_what_it_cannot_read(recurlab, quick, tmp_path, override):
    assert recurlab("train", *quick)[0] == 0
    code, _, err = recurlab("evaluate", str(run_of(tmp_path)), override)
    assert (code, err.count("\n")) == (2, 1)


def test_a_result_that_is_not_finite_is_a_failed_run(recurlab, quick, tmp_path):
    code, _, err = recurlab("train", "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_steps=1", *quick)
    assert code == 2
    assert "not finite in test at step" in err
    assert json.loads((run_of(tmp_path) / "status.json").read_text())["state"] == "failed"


def test_plateau_waits_for_a_validation_that_is_not_in_every_epoch(recurlab, quick):
    assert recurlab("train", "scheduler=plateau", "trainer.check_val_every_n_epoch=2", *quick)[0] == 0


def test_evaluate_refuses_to_change_what_was_trained(recurlab, quick, tmp_path):
    assert recurlab("train", *quick)[0] == 0
    code, _, err = recurlab("evaluate", str(run_of(tmp_path)), "model.hidden_size=9")
    assert code == 2
    assert err == "recurlab: 'model.hidden_size=9': an evaluation may set data.*, trainer.*, plugins and backend\n"


def test_a_grid_runs_every_combination(recurlab, quick, tmp_path):
    code, out, _ = recurlab("train", "-m", "cell=gru,indrnn", "seed=range(0,2)", *quick)
    assert code == 0
    configs = [yaml.safe_load(path.read_text()) for path in tmp_path.rglob("config.yaml")]
    found = sorted((c["cell"]["name"], c["seed"], c["experiment"]) for c in configs)
    names = {"gru": "adding/gru", "indrnn": "adding/indrnn"}
    assert found == [(cell, seed, names[cell]) for cell in ("gru", "indrnn") for seed in (0, 1)]
    assert "[4/4] cell=indrnn seed=1" in out


def test_a_grid_with_one_mistake_starts_nothing(recurlab, quick, tmp_path):
    code, _, err = recurlab("train", "-m", "model.num_layers=1,0", *quick)
    assert code == 2
    assert "model.num_layers=0" in err
    assert not list(tmp_path.iterdir())


def test_a_grid_goes_on_after_a_failed_run(recurlab, quick, tmp_path):
    code, _, err = recurlab("train", "-m", "optimizer=sgd", "optimizer.lr=1e30,0.1", *quick)
    assert code == 2
    assert "1 of 2 runs failed" in err
    states = sorted(json.loads(path.read_text())["state"] for path in tmp_path.rglob("status.json"))
    assert states == ["failed", "finished"]


def test_stopping_by_steps_before_the_first_validation_keeps_a_checkpoint(recurlab, quick, tmp_path):
    assert recurlab("train", "trainer.max_steps=3", *quick)[0] == 0
    run = run_of(tmp_path)
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 3
    assert set(result["metrics"]) == {"test/loss", "test/mse"}
    with (run / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/loss"]] == ["2"]
    assert package.load_run(run) is not None


def test_training_learns(recurlab, tmp_path):
    """A short adding problem falls far below chance in seconds."""
    arguments = ["experiment=adding/indrnn", "data.length=8", "optimizer.lr=0.005", "model.hidden_size=32"]
    quiet = ["trainer.enable_progress_bar=false", "trainer.max_epochs=3", "data.train_size=5000"]
    assert recurlab("train", *arguments, *quiet)[0] == 0
    assert json.loads((run_of(tmp_path) / "result.json").read_text())["metrics"]["test/mse"] < 0.05


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_other_loggers_write_beside_the_csv(recurlab, quick, tmp_path, logger):
    assert recurlab("train", f"logger={logger}", *quick)[0] == 0
    run = run_of(tmp_path)
    pattern = {"tensorboard": "tensorboard/events.*", "wandb": "wandb/offline-run-*/run-*.wandb"}[logger]
    assert b"valid/mse" in b"".join(path.read_bytes() for path in run.glob(pattern))
    assert (run / "metrics.csv").is_file()


def test_each_run_of_a_grid_has_its_own_wandb_run(recurlab, quick, tmp_path):
    assert recurlab("train", "-m", "logger=wandb", "seed=0,1", *quick)[0] == 0
    assert len(list(tmp_path.rglob("offline-run-*/run-*.wandb"))) == 2


def test_a_run_is_loaded_when_its_data_are_gone_or_others(recurlab, quick, tmp_path):
    """A folder of the user's own text: the size of its vocabulary is kept with the run."""
    text = tmp_path / "book.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20)
    own = ["data=text", f"data.dir={tmp_path}", "data.train=book.txt", "data.batch_size=4", "data.eval_batch_size=2"]
    short = [word for word in quick if not word.startswith("data.")]
    assert recurlab("train", *own, "model.stateful=true", *short)[0] == 0
    run = run_of(tmp_path / "runs")
    kept = package.load_run(run)
    symbols = torch.randint(0, kept.head.out_features, (2, 9))
    text.write_text("ab" * 400)
    with torch.no_grad():
        first = kept(symbols)
        assert torch.equal(package.load_run(run)(symbols), first)
        text.unlink()
        assert torch.equal(package.load_run(run)(symbols), first)
    code, _, err = recurlab("evaluate", str(run))
    assert (code, err.count("\n")) == (2, 1)
    assert "book.txt" in err
