"""What newcomers do works with the installed wheel alone: files of one's own, and the tasks of CONTRIBUTING.md."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recurlab

TOP = Path(__file__).parents[2]
MODULE = """\
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

import recurlab


@recurlab.register_cell("mine")
class Mine(recurlab.Cell):
    gates = ("candidate",)

    def __init__(self, leak: float = 0.9) -> None:
        self.leak = leak

    def step(self, x, h, recur):
        return self.leak * h + (1 - self.leak) * torch.tanh(x.candidate + recur.candidate(h))


@recurlab.register_data("mine")
@dataclass(frozen=True)
class Sums(recurlab.Data):
    batch_size: int = 4
    eval_batch_size: int = 4
    count: int = 8
    problem: ClassVar = "regression"
    chance: ClassVar = {"mse": 1.0}
    input_size: ClassVar = 2
    output_size: ClassVar = 1

    def split(self, name, seed, epoch):
        inputs = np.random.default_rng((len(name), seed)).normal(size=(self.count, 5, 2)).astype(np.float32)
        return recurlab.Arrays(inputs, inputs.sum(1)[:, :1])
"""
# Runs each command line of the standard input, and writes exit codes and outputs: to import torch takes seconds.
COMMANDS = """\
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from recurlab import __file__ as source
from recurlab.cli import main
from recurlab.results import figures

figures.png = lambda figure, mark=None: b"PNG"
answers = []
for words in json.load(sys.stdin):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(words)
    answers.append((code, out.getvalue(), err.getvalue()))
json.dump((source, answers), sys.stdout)
"""
SHORT = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "model.hidden_size=4"]
OWN = [*SHORT, "backend=eager", "plugins=[my_cells]"]
EXPERIMENT = """\
# @package _global_
defaults:
  - override /cell: mine
  - override /data: mine
data: {count: 12}
"""
TRAINED = [
    (["cell=mine", "cell.leak=0.3", "data=mine", "data.count=4"], ""),
    (["experiment=own"], ""),
    (["cell=rnn", "cell.name=mine", "cell.options.leak=0.3", "data={name: mine}"], ""),  # as of old
    (["cell=mine", "task=mine"], "recurlab: task=: is called data= now\n"),
]
WRONG = [
    (["cell=mien"], "cell='mien': allowed are "),
    (["cell=mine", "cell.laek=1"], "cell.laek=1: unknown key; cell 'mine' has: leak; did you mean 'cell.leak'?"),
    (["experiment=own", "cell.leak=much"], "cell.leak='much': must be of type float"),
    (["cell=rnn", "cell.name=mien"], "cell.name='mien': allowed are "),
    (["data=mien"], "data='mien': allowed are "),
    (["experiment=onw"], "experiment='onw': allowed are "),
    (["data=mine", "data.cuont=8"], "data.cuont=8: unknown key; data 'mine' has: batch_size, eval_batch_size, count;"),
    (["data={name: mine, cuont: 8}"], "did you mean 'data.count'?"),
]

CONTRIBUTING = (TOP / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"^One file, `(.+?)`:\n\n```\w+\n(.*?)```", CONTRIBUTING, re.DOTALL | re.MULTILINE))
ENTRIES = re.findall(r"^and one line in `(\w+)` of \[.+?\]\((.+?)\): `(.+?)`", CONTRIBUTING, re.MULTILINE)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", CONTRIBUTING, re.DOTALL) for line in block.splitlines()]
STUDY = [line for line in SHELL if line.startswith("recurlab study ")]
TASKS = [line for line in SHELL if line.startswith("recurlab ") and line not in STUDY]
FEW = ["data.train_size=40", "data.valid_size=10", "data.test_size=10"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=TOP, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel):
    """A folder that has the wheel and nothing else of recurlab."""
    folder = wheel.with_name("site")
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def contributed(site):
    """The same with the cell and the data of CONTRIBUTING.md in it."""
    for path, content in FILES.items():
        if path.startswith("src/"):
            (site / path.removeprefix("src/")).write_text(content)
    for table, path, line in ENTRIES:
        file = site / path.removeprefix("src/")
        text, count = re.subn(
            rf"(^{table} = Table\(.*?{{\n)", rf"\1{line}\n", file.read_text(), flags=re.DOTALL | re.MULTILINE
        )
        assert count == 1
        file.write_text(text)
    return site


@pytest.fixture(scope="module")
def answers(contributed, tmp_path_factory):
    """What each command line has answered: exit code, output and errors, by its words."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "my_cells.py").write_text(MODULE)
    (folder / "configs" / "experiment").mkdir(parents=True)
    (folder / "configs" / "experiment" / "own.yaml").write_text(EXPERIMENT)
    lines = {tuple(words): ["train", *words, *OWN] for words, _ in (*TRAINED, *WRONG)}
    for line in TASKS:
        words = shlex.split(line)[1:]
        lines[line] = [*words, *([*SHORT, *FEW] if words[0] == "train" else [])]
    command, given = [sys.executable, "-c", COMMANDS], json.dumps([*lines.values()])
    done = subprocess.run(
        command, input=given, text=True, cwd=folder, env=_only(contributed), check=True, stdout=subprocess.PIPE
    )
    source, found = json.loads(done.stdout)
    assert Path(source).is_relative_to(contributed)
    return dict(zip(lines, found, strict=True))


def _only(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]


def test_the_wheel_has_every_file_of_the_package_and_every_config(wheel):
    source = {str(path.relative_to(TOP / "src")) for path in _files(TOP / "src")}
    configs = {f"recurlab/{path.relative_to(TOP)}" for path in _files(TOP / "configs")}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == source | configs


def test_it_tells_its_version_at_once(site, tmp_path):
    command = [sys.executable, "-X", "importtime", site / "bin" / "recurlab", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=_only(site), check=True)
    assert done.stdout == f"recurlab {recurlab.__version__}\n"
    assert not any(line.endswith((" torch", " hydra")) for line in done.stderr.splitlines())
    assert [path.name for path in site.glob("*.dist-info")] == [f"recurlab-{recurlab.__version__}.dist-info"]


@pytest.mark.parametrize(("words", "line"), TRAINED)
def test_what_a_plugin_registers_is_trained(answers, words, line):
    code, out, err = answers[tuple(words)]
    assert (code, err) == (0, line)
    assert "run:     runs/" in out


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_word_is_one_line(answers, words, message):
    code, out, err = answers[tuple(words)]
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_contributing_has_three_tasks():
    assert [path.split("/")[-2] for path in FILES] == ["cells", "data", "zoneout"]
    assert len(ENTRIES) == 2
    assert all(line.split()[0] == "scripts/test" for line in SHELL if line not in (*TASKS, *STUDY))


@pytest.mark.parametrize("line", TASKS)
def test_a_contributed_cell_and_contributed_data_are_trained(answers, line):
    code, out, err = answers[line]
    assert (code, err) == (0, "")
    assert out


def test_a_contributed_study_is_run_and_reported(recurlab):
    (path,) = (Path(path) for path in FILES if path.endswith("study.yaml"))
    path.parent.mkdir(parents=True)
    path.write_text(FILES[str(path)].replace("max_epochs=2", "max_epochs=1, data.train_size=40, model.hidden_size=4"))
    for line in STUDY:
        code, _, err = recurlab(*shlex.split(line)[1:])
        assert (code, err) == (0, ""), line
    assert "test/loss" in path.with_name("README.md").read_text()
