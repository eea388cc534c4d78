"""Every command and every snippet in the README runs."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines() if line]
COMMANDS = [line for line in LINES if line.startswith("recurlab ")]
SHORT = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "model.hidden_size=8"]
SMALL = {
    "adding": [*SHORT, "data.train_size=40", "data.valid_size=10", "data.test_size=10"],
    "mnist": [*SHORT, "data.valid_size=20", "data.verify=false"],
    "japanese_vowels": [*SHORT, "data.verify=false", "data.valid_size=9"],
    "tiny_shakespeare": [*SHORT, "data.dir=path/to/tinyshakespeare", "data.verify=false", "data.batch_size=2"],
    "dataset": SHORT,
}
STUDY = """
title: One run
question: Does it run?
metric: test/loss
better: min
overrides: [data=adding, data.length=9, trainer.max_epochs=1, trainer.accelerator=cpu, data.train_size=40]
factors: {model: {GRU: [cell=gru, model.hidden_size=3]}}
scales: {cpu: {seeds: [0]}}
figure: {x: model, y: test/loss}
"""
PAGE = "# One run\n<!-- results:begin -->\n<!-- results:end -->\n\n## What was found\n\nNothing.\n"
BEFORE = {
    "evaluate": "adding/lstm", "report": "adding/lstm", "generate": "tiny_shakespeare/gru", "export": "adding/lstm",
}  # fmt: skip


def test_the_readme_has_its_two_commands_and_more():
    assert [line.split()[0] for line in LINES if line not in COMMANDS] == ["scripts/quickstart", "scripts/test"]
    assert len(COMMANDS) > 8
    assert len(SNIPPETS) == 4


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_runs(line, recurlab, tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "path" / "to")
    shutil.copy(tiny_data / "own.csv", tmp_path / "waves.csv")
    (tmp_path / "my_cells.py").write_text(SNIPPETS[3])
    (study := tmp_path / "experiments" / "adding").mkdir(parents=True)
    for name, text in {"study.yaml": STUDY, "README.md": PAGE}.items():
        (study / name).write_text(text)
    with h5py.File(content := io.BytesIO(), "w") as file:
        for number, shape in enumerate(((3, 12), (4, 12), (2, 12))):
            file[f"layers/gru/cell/vars/{number}"] = np.zeros(shape, "float32")
    with zipfile.ZipFile(tmp_path / "path" / "to" / "model.keras", "w") as file:
        file.writestr("model.weights.h5", content.getvalue())
    if before := BEFORE.get(line.split()[1]):
        folder = before.partition("/")[0]
        assert recurlab("train", f"experiment={before}", *SMALL[folder])[0] == 0
    words = [str(found) for word in shlex.split(line)[1:] for found in sorted(Path().glob(word)) or [word]]
    cut = {"shapes=A": "shapes=5x2x3x4", "repeats=5": "repeats=1", "sweep.trials=12": "sweep.trials=2"}
    words = [cut.get(word, word) for word in words]
    data = next((name for name in SMALL if words[0] in ("train", "sweep") and name in line), None)
    code, out, err = recurlab(*words, *SMALL.get(data, []))
    assert (code, err) == (0, "")
    assert out


def test_the_snippets_of_the_layer_run(tmp_path):
    """In one process, for to import torch takes seconds."""
    for place in range(3):
        (tmp_path / f"snippet{place}.py").write_text(SNIPPETS[place])
    code = "import runpy\nfor place in range(3):\n    print(f'-- {place}')\n    runpy.run_path(f'snippet{place}.py')\n"
    said = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path)
    _, first, second, third = re.split(r"^-- \d\n", said, flags=re.MULTILINE)
    assert "eager" in first
    assert not second
    assert "input (T, B, 28) float32" in third


def test_a_users_cell_takes_less_than_fifteen_lines_and_any_recurrence(tmp_path, monkeypatch):
    import torch

    import recurlab

    assert len([line for line in SNIPPETS[3].splitlines() if line.strip()]) < 15
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "readme_cells.py").write_text(SNIPPETS[3].replace('"mgu"', '"mgu_of_the_readme"'))
    __import__("readme_cells")
    for recurrence, heads in (("dense", 1), ("diagonal", 1), ("block", 2)):
        layer = recurlab.RNN(3, 4, cell="mgu_of_the_readme", recurrence=recurrence, heads=heads, zoneout=0.2)
        output, _ = layer(torch.randn(5, 2, 3))
        output.sum().backward()
        assert all(p.grad is not None for p in layer.parameters())
    sys.modules.pop("readme_cells")


def test_every_cell_data_set_and_option_named_exists():
    from recurlab.sources import groups

    table = dict(re.findall(r"^\| `(cell|recurrence|backend|data|model|logger)` \| (.*) \|$", TEXT, re.MULTILINE))
    assert len(table) == 6
    for group, text in table.items():
        named = set(re.findall(r"`(\w+)`", text))
        assert named <= set(groups()[group]), group


@pytest.mark.slow
def test_the_tests_for_other_processors_are_found_in_every_setting():
    command = ["bash", Path(__file__).parents[1] / "scripts" / "test_processors", "--collect-only"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(re.search(r": \d+(/\d+)? tests collected", line) for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) >= 9
