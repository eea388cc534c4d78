"""A run is continued from its last good checkpoint, and from nothing else."""

import csv
import json
import os
import resource
from pathlib import Path

import pytest
import torch

from command_process import only_run
from stopped_runs import LANGUAGE, QUICK, assert_same, stopped, weights

pytestmark = pytest.mark.usefixtures("with_plugins")


def damaged(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a byte is another one":
        content = bytearray(path.read_bytes())
        place = content.index(b"\x00\x00\x80\x3f") if b"\x00\x00\x80\x3f" in content else len(content) // 3
        content[place] ^= 0xFF
        path.write_bytes(content)
    else:
        torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize("how", ["truncated", "empty", "a byte is another one", "foreign"])
def test_the_checkpoint_before_a_bad_one_is_used(train, whole, monkeypatch, how):
    _, _, run = stopped(train, monkeypatch, 6)
    damaged(run.last, how)
    code, err = train(*QUICK, *LANGUAGE, "resume=auto")
    assert code == 0
    assert err.count("\n") == 1
    assert err.startswith(f"recurlab: {run.last}: not a checkpoint of this run: ")
    assert err.endswith("; going on from previous.ckpt\n")
    assert_same(only_run("runs"), whole)


def shorter(run, rows):
    """Take the last rows from metrics.csv, and leave half a row, as a machine without power does."""
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[: rows + 1]) + lines[rows + 1][:3])


def test_the_checkpoint_before_is_used_where_rows_are_missing(train, whole, monkeypatch):
    _, _, run = stopped(train, monkeypatch, 8)
    before, last = (torch.load(path, weights_only=True)["rows"] for path in (run.previous, run.last))
    shorter(run, last - 1)
    run.provenance.write_text('{"seed": 0')
    code, err = train(*QUICK, *LANGUAGE, "resume=auto")
    assert code == 0
    short, garbled = err.splitlines()
    assert garbled.startswith(f"recurlab: {run.provenance}: can't be read: ")
    assert garbled.endswith("; what earlier parts of the run came from is lost")
    assert before < last
    assert short == (
        f"recurlab: {run.metrics}: of {last} rows before last.ckpt only {last - 1} can be read; going on from "
        "previous.ckpt"
    )
    assert_same(run, whole)
    assert json.loads(run.provenance.read_text())["seed"] == 0


@pytest.mark.parametrize("metrics", ["no file", "other text", "half of a character"])
def test_a_run_goes_on_whose_rows_are_lost(train, whole, monkeypatch, metrics):
    _, _, run = stopped(train, monkeypatch, 5)
    rows = torch.load(run.last, weights_only=True)["rows"]
    if metrics == "no file":
        run.metrics.unlink()
    elif metrics == "other text":
        run.metrics.write_text('a,b\n"')
    else:
        run.metrics.write_bytes(run.metrics.read_bytes()[:20] + b"\xc3")
    code, err = train(*QUICK, *LANGUAGE, "resume=auto")
    said = f"recurlab: {run.metrics}: of {rows} rows before last.ckpt only 0 can be read; going on from last.ckpt\n"
    assert (code, err) == (0, said)
    found, wanted = [list(csv.DictReader(r.metrics.read_text().splitlines())) for r in (run, whole)]
    assert found == wanted[-len(found) :]
    assert torch.equal(*(torch.cat([w.flatten() for w in weights(r.last).values()]) for r in (run, whole)))


@pytest.mark.parametrize("place", ["before the renames", "between the renames"])
def test_a_run_that_was_killed_at_its_last_renames_has_all_checkpoints(train, monkeypatch, place):
    assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")
    run = only_run("runs")
    end = run.last.read_bytes(), run.previous.read_bytes()
    run.last.replace(run.next)
    if place == "before the renames":
        run.previous.replace(run.last)
    run.set_status("running")
    assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")
    assert (run.last.read_bytes(), run.previous.read_bytes()) == end
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_a_run_without_a_good_checkpoint_says_so(train, monkeypatch):
    _, _, run = stopped(train, monkeypatch, 6)
    for path in (run.last, run.previous):
        damaged(path, "truncated")
    code, err = train(*QUICK, *LANGUAGE, "resume=auto")
    assert code == 2
    assert err.count("\n") == 1
    assert "no other can be used: start anew without resume" in err


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(train, whole, monkeypatch):
    _, _, run = stopped(train, monkeypatch, 2)
    run.last.unlink()
    run.set_status("running")  # as one that was killed leaves it
    assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")
    assert_same(only_run("runs"), whole)


def test_a_checkpoint_holds_nothing_that_could_run(train, monkeypatch):
    _, _, run = stopped(train, monkeypatch, 6)

    class Hostile:
        def __reduce__(self):
            return os.system, ("touch canary",)

    torch.save({"content": Hostile()}, run.last)
    assert train(*QUICK, *LANGUAGE, "resume=auto")[0] == 0
    assert not Path("canary").exists()


def test_a_failed_write_names_the_last_good_checkpoint(train, monkeypatch):
    """As on a full disk: no file may grow beyond a few blocks once the run is under way."""
    words = ["data={name: toy_language}", "model.hidden_size=64", "trainer.max_epochs=3"]
    _, _, run = stopped(train, monkeypatch, 5, words=words)
    before = run.last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        code, err = train(*QUICK, *words, "resume=auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    assert err.count("\n") == 1
    assert "can't be written: File too large" in err
    assert err.endswith(f"; the last good checkpoint is {run.last}\n")
    assert run.last.read_bytes() == before
    assert not [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")]
    assert only_run("runs").state == "failed"
    assert train(*QUICK, *words, "resume=auto") == (0, "")
