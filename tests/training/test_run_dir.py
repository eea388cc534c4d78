import io
import json
import os
import platform
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recurlab.errors import RecurlabError
from recurlab.files import write_text
from recurlab.foreign import load_tensors
from recurlab.results.records import Curves
from recurlab.training.metrics_csv import MetricsCsv
from recurlab.training.provenance import processor, provenance
from recurlab.training.run_dir import RunDir, read_json, write_json


def test_two_runs_never_share_a_directory(tmp_path):
    runs = [RunDir.create(str(tmp_path), "a/b", OmegaConf.create({"seed": 1})) for _ in range(5)]
    assert len({run.path for run in runs}) == 5
    assert all(run.path.parent == tmp_path / "a" / "b" for run in runs)


def test_a_new_run_is_running_and_holds_its_config(tmp_path):
    run = RunDir.create(str(tmp_path), "a", OmegaConf.create({"seed": 1}))
    assert read_json(run.status)["state"] == "running"
    assert RunDir.open(run.path).load_config() == {"seed": 1}


def test_a_write_that_fails_leaves_the_old_text(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_damaged_json_is_named(tmp_path, text):
    write_text(tmp_path / "x.json", text)
    with pytest.raises(RecurlabError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_provenance_is_plain_and_names_what_ran(tmp_path):
    found = json.loads(json.dumps(provenance(seed=7)))
    assert found["seed"] == 7
    assert {"torch", "numpy", "pytorch-lightning"} <= set(found["packages"])
    assert found["threads"] >= 1
    assert all(commit is None or len(commit) == 40 for commit in found["git"].values())


@pytest.mark.parametrize(
    ("lines", "name"),
    [("model\t\t: 2\ncpu family\t: 26\nmodel name\t: AMD EPYC\n\nmodel name\t: other", "AMD EPYC (family 26 model 2)"),
     ("processor\t: 0\nCPU part\t: 0xd0c\n", "what Python knows")],
)  # fmt: skip
def test_a_processor_is_told_by_its_family_where_its_name_tells_little(lines, name, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda self: io.StringIO(lines))
    monkeypatch.setattr(platform, "processor", lambda: "what Python knows")
    assert processor() == name


MERGED = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 20)
)


@pytest.mark.parametrize("text", [MERGED, "a: &a [*a]", "&a {b: *a}"])
def test_what_aliases_make_of_a_config_has_an_end(tmp_path, text):
    run = RunDir(tmp_path)
    run.config.write_text(text)
    with pytest.raises(RecurlabError, match=r"config\.yaml: can't be read: its aliases \(\*\) make more than 10,000 "):
        run.load_config()
    run.config.write_text("a: &a [1, 2]\nb: *a\n")
    assert run.load_config() == {"a": [1, 2], "b": [1, 2]}


def lock(run):
    with run.held():
        pass


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "hole"])
@pytest.mark.parametrize(
    ("name", "read"),
    [("config.yaml", RunDir.load_config), ("data.json", lambda run: read_json(run.facts)), (".lock", lock),
     ("metrics.csv", Curves), ("metrics.csv", lambda run: MetricsCsv(run.metrics, rows=1)),
     ("checkpoints/best.ckpt", lambda run: load_tensors(run.best, checked=True))],
)  # fmt: skip
def test_what_is_no_file_of_a_size_is_not_waited_for(tmp_path, kind, name, read):
    path = tmp_path / name
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    run.set_status("finished")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "hole":
            path.touch()
            os.truncate(path, 2**42)
    if name == ".lock" and kind in ("device", "hole"):  # of which nothing is read
        return
    with pytest.raises((RecurlabError, OSError, zipfile.BadZipFile)):
        read(run)
