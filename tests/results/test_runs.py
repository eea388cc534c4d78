import json
import shutil
from pathlib import Path

import pytest
import torch

import recurlab as package
from recurlab.cli import main
from recurlab.results.figures import draw_curves
from recurlab.results.summary import model_explanation, run_summary


@pytest.fixture(scope="module")
def trained(quick, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", "experiment=adding/lstm", f"output_dir={folder}", *quick]) == 0
    (status,) = folder.rglob("status.json")
    return status.parent


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of a run of its own for each test."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_summary_puts_the_test_metric_beside_chance(run):
    lines = run_summary(run).splitlines()
    mse = json.loads((run / "result.json").read_text())["metrics"]["test/mse"]
    assert f"test/mse {mse:.6g}  (chance 0.167)" in lines
    assert lines[-1] == f"picture: {run / 'curves.png'}"


def test_the_picture_is_drawn_from_the_files_alone(pictures, run):
    draw_curves(run)
    drawn = (run / "curves.png").read_bytes()
    (run / "curves.png").unlink()
    assert draw_curves(run) == run / "curves.png"
    assert (run / "curves.png").read_bytes() == drawn


def test_a_loaded_model_goes_on_training(run):
    model = package.load_run(run).train()
    model(torch.randn(2, 7, 2)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_run_of_a_users_cell_is_read_back_only_when_the_cell_is_known(recurlab, quick, tmp_path, monkeypatch):
    (tmp_path / "own_cell.py").write_text(
        "import recurlab, torch\n"
        "class Own(recurlab.Cell):\n"
        "    gates = ('hidden',)\n"
        "    def step(self, x, h, recur):\n"
        "        return torch.sin(x.hidden + recur.hidden(h))\n"
        "recurlab.register_cell('own_cell')(Own)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert recurlab("train", "plugins=[own_cell]", "cell=rnn", "cell.name=own_cell", *quick)[0] == 0
    (status,) = tmp_path.rglob("status.json")
    assert package.load_run(status.parent) is not None
    from recurlab.cells import CELLS

    monkeypatch.delitem(CELLS._entries, "own_cell")
    with pytest.raises(package.RecurlabError, match=r"cell\.name='own_cell'"):
        package.load_run(status.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"input_size": -3}, "input_size=-3: must be a whole number of at least 1"),
     ({"output_size": 1.0}, "output_size=1.0: must be a whole number"),
     ({"input_size": "2"}, "input_size='2': must be a whole number"),
     ({"symbols": None}, "symbols=None: must be true or false"),
     ({"names": None}, "names: must be a list of names"),
     ({"units": [[0, 1], [0, 1]]}, "units: must be mean and standard deviation of each number to predict"),
     ({"units": [[0.5]]}, "units: must be pairs of mean and standard deviation"),
     ({"units": [[0, 0]]}, "units=0: must be a number, greater than 0"),
     ({"units": [["a", 1]]}, "units='a': must be a number")],
)  # fmt: skip
def test_facts_that_no_run_writes_are_named_with_their_file(run, change, said):
    facts = run / "data.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), **change}))
    with pytest.raises(package.RecurlabError) as caught:
        package.load_run(run)
    assert str(caught.value).startswith(f"{facts}: {said}")


def test_json_nested_without_end_is_a_damaged_file(run):
    (run / "data.json").write_text("[" * 100_000)
    with pytest.raises(package.RecurlabError, match=r"data\.json: can't be read"):
        package.load_run(run)


def test_an_evaluation_on_data_of_other_symbols_is_refused(recurlab, tmp_path):
    (tmp_path / "book.txt").write_text("abab ab" * 30)
    (tmp_path / "more.txt").write_text("abab abc" * 30)
    (tmp_path / "other.txt").write_text("xyxy xy" * 30)
    small = ["data.batch_size=3", "data.eval_batch_size=2", "model.hidden_size=4", "trainer.max_steps=2"]
    options = [*small, "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    assert recurlab("train", "data=text", "data.dir=.", "data.train=book.txt", *options)[0] == 0
    (status,) = tmp_path.rglob("status.json")
    run = str(status.parent)
    assert recurlab("evaluate", run)[0] == 0
    begin = f"recurlab: data: not as those that run={run!r} was trained on: "
    for override, said in (
        ("data.train=more.txt", "input_size: 4 instead of 3"),
        ("data.train=other.txt", "names: 'x' instead of 'a'"),
        ("data.min_count=2", "input_size: 4 instead of 3"),
    ):
        code, out, err = recurlab("evaluate", run, override)
        assert (code, out, err) == (2, "", f"{begin}{said}\n")


def test_an_explanation_names_the_backend_of_each_layer(recurlab, fastest):
    code, out, _ = recurlab("explain", "data=adding", "cell=indy_gru", "model.num_layers=2")
    assert code == 0
    cell = "GRU(reset='before', activation='tanh', recurrent_activation='sigmoid')"
    assert f"layer 1: {cell}, diagonal recurrence, backend {fastest}" in out
    code, out, _ = recurlab("explain", "data=adding", "model.layer_norm=true", "model.hidden_size=3")
    assert code == 0
    assert f"backend {fastest}\n  not cudnn: it needs a CUDA device\n" in out
    model = torch.nn.Sequential(package.RNN(2, 3))
    assert f"{sum(p.numel() for p in model.parameters())} parameters" in model_explanation(model, source=False)
