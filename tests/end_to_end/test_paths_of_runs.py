"""What is there is a path, whatever its name; a command that gets nothing to work on says so."""

import shutil
from pathlib import Path

import pytest

import recurlab as package
from recurlab.cli import main

NAMES = ["lr=0.1", "data.dir=x", "plugins=[x]", "it's", "{x}", "-x", "~name"]


@pytest.fixture(scope="module")
def trained(quick, tmp_path_factory) -> Path:
    """A run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *quick, "trainer.max_steps=1", "output_dir=runs"]) == 0
    (status,) = folder.rglob("status.json")
    return status.parent


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_any_name_is_evaluated_and_continued(recurlab, trained, tmp_path, name):
    shutil.copytree(trained, tmp_path / "below" / name)
    code, out, said = recurlab("evaluate", f"below/{name}/", "trainer.accelerator=cpu")
    assert (code, said) == (0, "")
    assert out.startswith("test/")
    shutil.move(tmp_path / "below" / name, tmp_path)
    assert recurlab("train", f"resume={name}")[0] == 0  # it has finished before
    if not name.startswith("-"):
        assert recurlab("evaluate", name)[1] == out
    else:
        assert recurlab("evaluate", "--", name)[1] == recurlab("evaluate", f"./{name}")[1] == out


def test_a_page_and_a_graph_of_a_run_of_any_name(recurlab, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "lr=0.1")
    assert recurlab("report", "lr=0.1")[1] == "lr=0.1/report.html\n"
    code, _, said = recurlab("export", "lr=0.1", "lr=0.1.pt2")
    assert (code, (tmp_path / "lr=0.1.pt2").is_file()) == (0, True), said


@pytest.mark.parametrize(
    "words",
    [["evaluate"], ["evaluate", "lr=0.1/run"], ["evaluate", "data.dir=x"], ["report"], ["report", "plugins=[x]"],
     ["report", "a=b/c"], ["generate"], ["generate", "a=b"], ["export"], ["export", "plugins=[x]"], ["export", "a=b"],
     ["export", "a=b", "c=d.pt2"], ["convert"], ["convert", "a=b.npz"],
     ["convert", "a=b.npz", "c.npz", "--from", "torch"],
     ["study"], ["study", "list"], ["study", "report"], ["study", "report", "--check"], ["study", "run"], ["sweep"],
     ["sweep", "report"], ["sweep", "report", "a=b"], ["bench", "cells="], ["explain", "a"], ["completion"]],
)  # fmt: skip
def test_nothing_to_work_on_is_one_line(recurlab, tmp_path, words):
    code, out, said = recurlab(*words)
    assert (code, out) == (2, "")
    assert len([line for line in said.splitlines() if not line.startswith(("usage:", " "))]) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_is_loaded_by_its_very_name(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "~name")
    assert package.load_run("~name") is not None
