"""Every mistake is one line, exit code 2, and leaves nothing behind."""

import json
import shutil
from pathlib import Path

import pytest

import recurlab as package
from recurlab.cli import main

CASES = {
    "a misspelt key": (["model.hiden_size=3"], "model.hiden_size=3: unknown key", "'model.hidden_size'"),
    "a key without its group": (["hidden_size=3"], "hidden_size=3: unknown key", "'model.hidden_size'"),
    "a misspelt group": (["celll=gru"], "celll='gru': unknown key", "'cell'"),
    "an unknown cell": (["cell=gruu"], "cell='gruu': allowed are", "'gru'"),
    "an unknown cell's name": (["cell.name=indrn"], "cell.name='indrn': allowed are", "'indrnn'"),
    "an unknown experiment": (["experiment=adding/indrn"], "experiment='adding/indrn': allowed are", "'adding/indrnn'"),
    "an option that the cell has not": (["cell=lstm", "cell.reset=before"], "cell.reset='before': unknown key", ""),
    "a misspelt option of a cell": (
        ["cell=lstm", "cell.recurent_activation=relu"],
        "cell.recurent_activation='relu': unknown key; cell 'lstm' has: activation, recurrent_activation;",
        "'cell.recurrent_activation'",
    ),
    "an option of the model as one of the cell": (
        ["cell.zoneout=0.1"], "cell.zoneout=0.1: unknown key; cell 'gru' has: reset,", "'model.zoneout'",
    ),
    "an option of no optimiser": (
        ["optimizer.lrr=1"], "optimizer.lrr=1: unknown key; optimizer 'adam' has: lr,", "'optimizer.lr'",
    ),
    "an option that no data set has": (
        ["data.lenght=9"], "data.lenght=9: unknown key; data 'adding' has: batch_size,", "'data.length'",
    ),
    "an option of a wrong type of the cell": (["cell.reset=[1]"], "cell.reset=[1]: must be of type string", ""),
    "a wrong type": (["model.hidden_size=abc"], "model.hidden_size='abc': must be of type integer", ""),
    "a fraction of an epoch": (["trainer.max_epochs=1.5"], "trainer.max_epochs=1.5: must be of type integer", ""),
    "zoneout out of range": (["model.zoneout=1.2"], "model.zoneout=1.2: must be a number, at least 0 and", ""),
    "no units": (["model.hidden_size=0"], "model.hidden_size=0: must be a whole number of at least 1", ""),
    "a negative learning rate": (["optimizer.lr=-1"], "optimizer.lr=-1.0: must be a number, greater than 0", ""),
    "an unknown activation": (["cell.activation=tahn"], "cell.activation='tahn': allowed are", "'tanh'"),
    "an unknown initialiser": (
        ["model.init.recurrent=ortogonal"], "model.init.recurrent.name='ortogonal': allowed are", "'orthogonal'",
    ),
    "an unknown option of an initialiser": (
        ["model.init.recurrent={name: orthogonal, gian: 2}"], "model.init.recurrent.gian=2: unknown key",
        "'model.init.recurrent.gain'",
    ),
    "heads that don't divide": (["recurrence=block", "recurrence.heads=3"], "heads=3: must divide hidden_size=128", ""),
    "an unknown backend": (["backend=eagre"], "backend='eagre': allowed are auto, cudnn, eager, fused", "'eager'"),
    "a gate that the cell has not": (["model.init.gate_bias={forgt: 1}", "cell=lstm"], "gate_bias='forgt'", "'forget'"),
    "zoneout for two states of one": (["model.zoneout=[0.1,0.2]"], "zoneout=[0.1, 0.2]: must be one number", ""),
    "no value": (["model.hidden_size"], "'model.hidden_size': an override has the form key=value", ""),
    "a grid without -m": (["seed=1,2"], "seed=1,2: several values make a grid, which needs -m", ""),
    "a broken override": (["seed={a"], "", ""),
    "a broken interpolation": (["seed=${nothing}"], "seed: Interpolation key 'nothing' not found", ""),
    "a plugin that is not there": (["plugins=[nowhere]"], "plugins='nowhere': can't be imported", ""),
    "a missing folder": (
        ["data=mnist", "data.dir=nowhere"],
        "data.dir='nowhere': train-images-idx3-ubyte.gz is missing; the original",
        "",
    ),
    "an odd residual stack": (["model=residual", "model.num_layers=5"], "num_layers=5: a residual stack has", ""),
    "a seed too large": (["seed=4294967296"], "seed=4294967296: must be a whole number of at least 0 and at most", ""),
    "one beta of two": (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9]: must be two numbers", ""),
    "a value without a key": (["=3"], "'=3': an override has the form key=value", ""),
    "a GPU that is not there": (["trainer.accelerator=gpu"], "trainer.accelerator='gpu': this machine has none", ""),
    "symbols asked of numbers": (["model.encoder=embedding"], "input=(100, 2, 2) torch.float32: this encoder", ""),
    "too much data": (["data.length=1000000000000"], "out of memory: ", ""),
    "too large a model": (["model.hidden_size=100000000000000"], "out of memory: ", ""),
    "a number of more than 64 bits": (
        ["model.hidden_size=100000000000000000000"], "model.hidden_size=100000000000000000000: must be a whole", "",
    ),
    "numbers asked of symbols": (
        ["data=copy_memory", "data.train_size=9", "model.encoder=linear"],
        "input=(120, 2) torch.int64: symbols need the", "'embedding'",
    ),
    "an option that no cell has": (["cell.options.alpha=1"], "cell.alpha=1: unknown key; cell 'gru' has: reset,", ""),
    "an option that is the layer's": (["cell.batch_first=true"], "cell.batch_first=True: unknown key", ""),
    "plugins that are no list": (["plugins=own"], "plugins='own': must be a list, as plugins=[own]", ""),
    "an initialiser that is no number": (
        ["model.init.recurrent={name: glorot, gain: -1}"], "glorot.gain=-1.0: must be a number, greater than 0", "",
    ),
    "characters that need quotes": (["data.dir=~/mnist"], "'data.dir=~/mnist': can't be read", ""),
    "a stateful layer and a part of a batch": (
        ["model.stateful=true"], "data.batch_size=32: stateful layers need it to divide the 10000 training", "",
    ),
    "a stateful layer and a part of a batch of validation": (
        ["model.stateful=true", "data.batch_size=20", "data.eval_batch_size=300"],
        "data.eval_batch_size=300: stateful layers need it to divide the 1000 validation", "",
    ),
    "a sum over time of one answer": (["loss.over_time=sum"], "loss.over_time='sum': this problem has no loss at", ""),
    "weights that are not an embedding's": (["model.tie_weights=true"], "tie_weights=True: needs encoder=", ""),
    "half a process": (["trainer.devices=0.5"], "trainer.devices=0.5: must be of type integer", ""),
    "a grid of nothing": (["-m", "seed=range(2,0)"], "seed=range(2,0): this grid has no job", ""),
    "a grid of no end": (["-m", "model.dropout=interval(0,1)"], "model.dropout=interval(0,1): ", ""),
    "a grid whose second job can't be built": (
        ["-m", "cell=lstm,gru", "model.zoneout=[0.1,0.2]"], "zoneout=[0.1, 0.2]: must be one number", "",
    ),
    "a name for a mapping": (["loss=abc"], "loss='abc': must be a mapping of ar, tar, over_time", ""),
    "a mapping for a list": (["plugins={a: 1}"], "plugins={'a': 1}: must be a list", ""),
    "a list for a mapping": (["cell.options=[1]"], "cell.options=[1]: must be a mapping", ""),
    "a list for a text": (["output_dir=[1]"], "output_dir=[1]: must be of type string", ""),
    "an unknown key of a mapping": (["model.init={bais: normal}"], "model.init.bais='normal'", "'model.init.bias'"),
    "a value left open": (["output_dir=???"], "output_dir='???': must be given", ""),
    "an interpolation in quotes": (["output_dir=\\${seed}"], "output_dir='${seed}': must be a plain value", ""),
    "a number beyond float32": (["optimizer.weight_decay=1e38"], "optimizer.weight_decay=1e+38: must be a number", ""),
    "a number beyond any": (["optimizer.lr=1" + "0" * 400], "optimizer.lr=1000", ""),
    "layers without end": (["model.num_layers=1000000000"], "model.num_layers=1000000000: must be a whole", ""),
    "half precision on a CPU": (
        ["trainer.accelerator=cpu", "trainer.precision=16-mixed"], "trainer.precision='16-mixed': needs a GPU", "",
    ),
    "a home that is not there": (['output_dir="~no_such_user/x"'], "output_dir='~no_such_user/x': there can be no", ""),
    "a setting of Hydra": (["hydra.run.dir=x"], "hydra.run.dir=x: Hydra's own settings have no effect here", ""),
    "a choice put elsewhere": (["cell@model=gru"], "cell@model=gru: a choice has its own place, say cell=", ""),
    "an unknown option": (["--frobnicate"], "'--frobnicate': unknown option", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_writes_nothing(recurlab, tmp_path, case, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides, start, hint = CASES[case]
    code, out, err = recurlab("train", *overrides)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"recurlab: {start}")
    assert hint in err.rpartition("did you mean")[2]
    assert not list(tmp_path.iterdir())


def test_an_unknown_command_names_the_nearest(recurlab):
    code, _, err = recurlab("trian")
    assert code == 2
    allowed = "train, evaluate, report, generate, explain, sweep, bench, study, convert, export, completion"
    assert err == f"recurlab: command='trian': allowed are {allowed}; did you mean 'train'?\n"


def test_an_output_directory_that_is_a_file(recurlab, quick, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, _, err = recurlab("train", "output_dir=taken", *quick)
    assert code == 2
    assert err == "recurlab: output_dir='taken': can't be written: Not a directory\n"
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(recurlab, quick, tmp_path, monkeypatch):
    from recurlab.problems.regression import Regression

    plain, calls = Regression.measure, []

    def poisoned(self, outputs, targets, lengths):
        calls.append(self._trainer is not None and self.trainer.training and self.trainer.global_step == 7)
        return plain(self, outputs * float("nan") if calls[-1] else outputs, targets, lengths)

    monkeypatch.setattr(Regression, "measure", poisoned)
    code, _, err = recurlab("train", *quick)
    assert code == 2
    assert err.count("\n") == 1
    assert "loss=nan: not finite at step 7 (epoch 1)" in err
    (last,) = tmp_path.rglob("last.ckpt")
    assert str(last.relative_to(tmp_path)) in err
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["state"] == "failed"
    assert package.load_run(status.parent) is not None


def test_a_loss_that_is_not_finite_in_the_first_epoch(recurlab, quick):
    code, _, err = recurlab("train", "optimizer=sgd", "optimizer.lr=1e30", *quick)
    assert code == 2
    assert "not finite at step" in err
    assert "the last good checkpoint is none" in err


@pytest.fixture(scope="module")
def trained(quick, tmp_path_factory) -> Path:
    """The folder in which a run was trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *quick]) == 0
    return folder


class TestReadingARunBack:
    @pytest.fixture
    def run(self, trained, tmp_path) -> Path:
        """A copy of that run."""
        shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
        (status,) = tmp_path.rglob("status.json")
        return status.parent

    def test_a_folder_that_is_no_run(self, tmp_path):
        with pytest.raises(package.RecurlabError, match="not a run directory"):
            package.load_run(tmp_path)

    def test_a_run_of_another_version(self, run, recurlab):
        (run / "status.json").write_text('{"format": 99, "state": "finished"}')
        code, _, err = recurlab("evaluate", str(run))
        assert code == 2
        assert "its format is 99, this version of recurlab reads 3" in err

    def test_a_truncated_checkpoint(self, run):
        checkpoint = run / "checkpoints" / "best.ckpt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        with pytest.raises(package.RecurlabError, match=r"best\.ckpt: not a checkpoint of this model"):
            package.load_run(run)

    def test_a_missing_checkpoint(self, run):
        (run / "checkpoints" / "best.ckpt").unlink()
        with pytest.raises(package.RecurlabError, match="no such checkpoint"):
            package.load_run(run)

    def test_a_damaged_config(self, run):
        (run / "config.yaml").write_text("a: [")
        with pytest.raises(package.RecurlabError, match=r"config\.yaml: can't be read"):
            package.load_run(run)

    def test_a_checkpoint_is_not_unpickled(self, run, tmp_path):
        import torch

        torch.save({"state_dict": Path("/")}, run / "checkpoints" / "best.ckpt")
        with pytest.raises(package.RecurlabError, match="not a checkpoint of this model"):
            package.load_run(run)
