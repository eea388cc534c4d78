import csv
import shutil
from pathlib import Path

import pytest

SWEEP = """\
title: A toy
question: Does it run?
metric: test/loss
overrides:
  - plugins=[toy_study]
  - "data={name: toy_study}"
  - model.hidden_size=3
  - trainer.max_epochs=3
factors:
  cell:
    GRU: [cell=gru]
    RNN: [cell=rnn]
  size:
    4: [model.hidden_size=4]
    7: [model.hidden_size=7]
skip:
  - {cell: RNN, size: 7}
measures:
  solved: {first_step: valid/loss, above: 0}
  never: {first_step: valid/loss, below: 0}
  early: {at_seconds: 1000, of: valid/loss}
scales:
  cpu: {seeds: [5, 0]}
  gpu: {seeds: [1], levels: {cell: [GRU]}, overrides: [trainer.max_epochs=4]}
figure: {x: size, hue: cell}
"""
README = "# A toy\n\n<!-- results:begin -->\n<!-- results:end -->\n\n## What was found\n\nIt runs,\nwell.\n\nMore.\n"
PLUGIN = Path(__file__).parents[1] / "toy_study.py"


@pytest.fixture
def toy(recurlab, tmp_path) -> Path:
    """The folder of a study in the current folder, whose runs take a second."""
    folder = tmp_path / "experiments" / "toy"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(SWEEP)
    (folder / "README.md").write_text(README)
    shutil.copy(PLUGIN, tmp_path)
    (tmp_path / "README.md").write_text("# All\n<!-- studies:begin -->\nold\n<!-- studies:end -->\nend\n")
    return folder


@pytest.fixture
def edit(toy):
    """Return a function that replaces a text in the study's definition, which must be there."""

    def replace(old: str, new: str) -> None:
        text = (toy / "study.yaml").read_text()
        assert old in text
        (toy / "study.yaml").write_text(text.replace(old, new))

    return replace


@pytest.fixture
def rows(toy):
    """Return a function that reads the rows of results.csv."""

    def read() -> list[dict[str, str]]:
        with (toy / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read
