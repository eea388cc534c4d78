"""The wheel, installed into an empty folder, does what a checkout does, with a user's own files beside it."""

import json
import os
import subprocess
import sys
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


@recurlab.register_benchmark("mine")
@dataclass(frozen=True)
class Sums(recurlab.Benchmark):
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
SHORT = [
    "train", "plugins=[my_cells]", "trainer.max_epochs=1", "trainer.accelerator=cpu", "model.hidden_size=4",
    "trainer.enable_progress_bar=false", "backend=eager",
]  # fmt: skip
TRAINED = [["cell=rnn", "cell.name=mine", "cell.options.leak=0.3", "data={name: mine}"]]
WRONG = [
    (["cell=rnn", "cell.name=mien"], "cell.name='mien': allowed are "),
    (["data={name: mine, cuont: 8}"], "did you mean 'data.count'?"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder that has the wheel and nothing else of recurlab."""
    folder = tmp_path_factory.mktemp("wheel")
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "hatchling", "build", "-t", "wheel", "-d", folder], cwd=TOP, check=True, capture_output=True
    )
    (file,) = folder.glob("*.whl")
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder / "site", file]
    subprocess.run([*python, *install], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture(scope="module")
def answers(wheel, tmp_path_factory):
    """What each command line of `TRAINED` and `WRONG` has answered, by its words."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "my_cells.py").write_text(MODULE)
    lines = [*TRAINED, *(words for words, _ in WRONG)]
    source, found = json.loads(
        subprocess.run(
            [sys.executable, "-c", COMMANDS], input=json.dumps([[*SHORT, *words] for words in lines]), text=True,
            cwd=folder, env=_only(wheel), check=True, stdout=subprocess.PIPE,
        ).stdout
    )  # fmt: skip
    assert Path(source).is_relative_to(wheel)
    return dict(zip(map(tuple, lines), found, strict=True))


def _only(wheel: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]


def test_it_has_every_file_of_the_package_and_every_config(wheel):
    source = {path.relative_to(TOP / "src") for path in _files(TOP / "src")}
    configs = {Path("recurlab") / path.relative_to(TOP) for path in _files(TOP / "configs")}
    assert {path.relative_to(wheel) for path in _files(wheel / "recurlab")} == source | configs


def test_it_tells_its_version_at_once(wheel, tmp_path):
    command = [sys.executable, "-X", "importtime", wheel / "bin" / "recurlab", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=_only(wheel), check=True)
    assert done.stdout == f"recurlab {recurlab.__version__}\n"
    assert not any(line.endswith((" torch", " hydra")) for line in done.stderr.splitlines())
    assert [path.name for path in wheel.glob("*.dist-info")] == [f"recurlab-{recurlab.__version__}.dist-info"]


@pytest.mark.parametrize("words", TRAINED, ids=" ".join)
def test_what_a_plugin_registers_is_trained(answers, words):
    code, out, err = answers[tuple(words)]
    assert (code, err) == (0, "")
    assert "run:     runs/" in out


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_word_is_one_line(answers, words, message):
    code, out, err = answers[tuple(words)]
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
