"""A run is continued from its last good checkpoint, and from nothing else."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import torch

from command_process import only_run
from command_process import run as run_command
from recurlab.cli import main
from recurlab.compose import compose
from recurlab.training.job import digest

QUICK = [
    "plugins=[toy_problems,stopper]", "model.hidden_size=5", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "optimizer=sgd",
]  # fmt: skip
PROBLEMS = {
    "classification": ["trainer.check_val_every_n_epoch=2"],
    "labelling": ["loss.ar=0.1", "loss.tar=0.1"],
    "multilabel": ["model=batchnorm", "model.num_layers=2", "scheduler=step", "scheduler.every=1"],
    "regression": ["trainer.precision=64-true", "optimizer=adam", "scheduler=plateau", "scheduler.patience=0"],
    "language": ["model.stateful=true", "model.zoneout=0.2"],
    "language, random_bptt: true": ["model.stateful=true", "optimizer=adam", "cell=lstm", "model.output_dropout=0.3"],
}
LANGUAGE = ["data={name: toy_language}", *PROBLEMS["language"], "trainer.max_epochs=3"]
STOPPER = """
import os, signal
from recurlab.problems.problem import Problem

def on_train_batch_end(self, *batch):
    if str(self.global_step) == os.environ.get("STOP_AT"):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

Problem.on_train_batch_end = on_train_batch_end
"""


def enter(folder, monkeypatch):
    """Go into a folder that has the plugins."""
    shutil.copy(Path(__file__).parent / "toy_problems.py", folder)
    (folder / "stopper.py").write_text(STOPPER)
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_plugins(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert main(["train", *QUICK, *LANGUAGE]) == 0
    return only_run(folder)


@pytest.fixture
def train(capfd):
    """Return a function that trains and returns the exit code and the error output."""

    def run(*words):
        code = main(["train", *words])
        return code, capfd.readouterr().err

    return run


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same(found, wanted):
    for name in ("best", "last"):
        ours, theirs = weights(found.checkpoints / f"{name}.ckpt"), weights(wanted.checkpoints / f"{name}.ckpt")
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            assert torch.equal(ours[key], weight), key
    results = [json.loads(run.result.read_text()) for run in (found, wanted)]
    for key in ("metrics", "steps", "epochs"):
        assert results[0][key] == results[1][key], key
    assert found.metrics.read_text() == wanted.metrics.read_text()


def stopped(train, monkeypatch, step, number=signal.SIGTERM, words=LANGUAGE):
    """Train until a signal comes after a step, and return the exit code, the error output and the run."""
    with monkeypatch.context() as patch:
        patch.setenv("STOP_AT", str(step))
        patch.setenv("SIGNAL", str(int(number)))
        code, err = train(*QUICK, *words, "resume=auto")
    return code, err, only_run("runs")


ENDS = {
    "good enough": ["trainer.stopping_threshold=GOOD"],
    "a single step": ["trainer.max_steps=1"],
    "steps at the end of an epoch": ["trainer.max_steps=6"],
    "epochs": ["trainer.max_epochs=2"],
    "steps within an epoch": ["trainer.max_steps=5"],
}
WHOLE = "trainer.max_epochs=4", "trainer.max_steps=-1", "trainer.stopping_threshold=null"
EACH = [
    pytest.param(problem, end, marks=[] if place == min(number, len(ENDS) - 1) else pytest.mark.slow)
    for number, problem in enumerate(PROBLEMS)
    for place, end in enumerate(ENDS)
]


@pytest.mark.parametrize(("problem", "end"), EACH)
def test_a_run_that_has_ended_goes_on_as_if_it_had_not(train, problem, end):
    words = [*QUICK, f"data={{name: toy_{problem}}}", *PROBLEMS[problem]]
    assert train(*words, *WHOLE, "output_dir=whole") == (0, "")
    good = "0" if problem in ("classification", "labelling") else "1e9"  # accuracies, and losses
    ends = [word.replace("GOOD", good) for word in ENDS[end]]
    assert train(*words, *WHOLE, *ends, "output_dir=parts") == (0, "")
    run = only_run("parts")
    early = weights(run.last)
    assert any(row["train/loss"] for row in csv.DictReader(run.metrics.read_text().splitlines()))
    again = f"resume={run.path}", *WHOLE, "plugins=[toy_problems,stopper]"
    assert train(*again) == (0, "")
    assert any(not torch.equal(early[key], weight) for key, weight in weights(run.last).items())
    assert_same(run, only_run("whole"))
    assert run.state == "finished"
    assert train(*again) == (0, "")  # nothing is left to do


@pytest.mark.parametrize("step", [1, 3, 4, 5, 11])
def test_a_run_that_is_told_to_end_saves_and_goes_on(train, whole, monkeypatch, step):
    """In the middle of an epoch, at its end, and just before the last step of all."""
    code, err, run = stopped(train, monkeypatch, step)
    assert (code, run.state) == (143, "preempted")
    assert err == (
        f"recurlab: ended by SIGTERM after step {step}; continue it with resume=auto, or resume=<its directory>\n"
    )
    assert torch.load(run.last, weights_only=True)["global_step"] == step
    assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")
    assert_same(only_run("runs"), whole)
    provenance = json.loads(run.provenance.read_text())
    assert len(provenance["continued"]) == 1
    assert provenance["continued"][0]["seed"] == 0


def test_the_first_interrupt_of_the_keyboard_saves(train, monkeypatch):
    code, err, run = stopped(train, monkeypatch, 2, signal.SIGINT)
    assert (code, err) == (130, f"recurlab: interrupted; the run is kept in {run.path}\n")
    assert run.state == "interrupted"
    assert torch.load(run.last, weights_only=True)["global_step"] == 2


def test_handlers_of_signals_are_put_back(train, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    stopped(train, monkeypatch, 2)
    assert train(*QUICK, *LANGUAGE) == (0, "")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_a_run_that_has_finished_is_left_as_it_is(train):
    for _ in range(2):
        assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")
        run = only_run("runs")
        times = {path: path.stat().st_mtime_ns for path in run.checkpoints.iterdir()}
    assert train(*QUICK, *LANGUAGE, "resume=auto", "trainer.log_every_n_steps=7", "seed=1") == (0, "")
    assert {path: path.stat().st_mtime_ns for path in run.checkpoints.iterdir()} == times
    assert len(list(Path("runs").rglob("status.json"))) == 2


def test_what_has_no_effect_makes_no_other_job(train, monkeypatch):
    _, _, run = stopped(train, monkeypatch, 5)
    other = (
        "trainer.checkpoint_every_n_steps=2",
        "trainer.num_workers=1",
        "trainer.stall_timeout=5",
        "logger=tensorboard",
    )
    assert train(*QUICK, *LANGUAGE, "resume=auto", *other) == (0, "")
    assert only_run("runs").path == run.path


@pytest.mark.parametrize("key", ["trainer.stopping_threshold=0", "model.init.gate_bias={update: 0}"])
def test_none_is_another_value_than_zero(key):
    zero, none = (digest(compose(["data=adding", *words])[1]) for words in ([key], []))
    assert zero != none


def test_auto_also_continues_a_run_with_a_name_of_its_own(train, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("STOP_AT", "5")
        patch.setenv("SIGNAL", str(int(signal.SIGTERM)))
        assert train(*QUICK, *LANGUAGE)[0] == 143
    run = only_run("runs")
    assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")
    assert only_run("runs").path == run.path


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


def test_two_processes_do_not_train_the_same_run(train, monkeypatch):
    monkeypatch.setattr("recurlab.training.run_dir.PATIENCE", 0.2)
    _, _, run = stopped(train, monkeypatch, 5)
    hold = "from recurlab.training.run_dir import RunDir\nwith RunDir.open(input()).held(): print(); input()"
    with subprocess.Popen([sys.executable, "-uc", hold], stdin=PIPE, stdout=PIPE, text=True) as other:
        print(run.path, file=other.stdin, flush=True)
        assert other.stdout.readline()
        code, err = train(*QUICK, *LANGUAGE, "resume=auto")
        other.communicate("\n")
    assert (code, err) == (2, f"recurlab: run={str(run.path)!r}: another process is training it\n")
    assert train(*QUICK, *LANGUAGE, "resume=auto") == (0, "")


def test_a_continued_run_keeps_its_config(train, monkeypatch):
    _, _, run = stopped(train, monkeypatch, 5)
    code, err = train(f"resume={run.path}", *QUICK, *LANGUAGE, "cell=lstm")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(
        f"recurlab: cell.name='lstm': run={str(run.path)!r} has 'gru'; a run that is continued may only "
    )
    assert train(f"resume={run.path}", *QUICK, *LANGUAGE) == (0, "")


def test_a_users_code_is_not_imported_because_a_directory_names_it(train, monkeypatch, tmp_path):
    _, _, run = stopped(train, monkeypatch, 5)
    assert run_command(tmp_path, ["train", f"resume={run.path}"]) == 2
    said = (tmp_path / "said").read_text()
    assert said.startswith("recurlab: data.name='toy_language': ")
    assert said.endswith(f"; if run={str(run.path)!r} had plugins=[...], give them again\n")
    assert run_command(tmp_path, ["train", f"resume={run.path}", "plugins=[toy_problems]"]) == 0


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_is_no_run_cannot_be_resumed(train, path):
    code, err = train(f"resume={path}")
    assert (code, err) == (2, f"recurlab: run={path!r}: not a run directory, it needs status.json and config.yaml\n")


@pytest.mark.parametrize(("word", "done"), [("trainer.max_epochs=1", 2), ("trainer.max_steps=4", 5)])
def test_a_run_is_not_made_shorter_than_it_is(train, monkeypatch, word, done):
    _, _, run = stopped(train, monkeypatch, 5)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    code, err = train(f"resume={run.path}", word, "plugins=[toy_problems,stopper]")
    assert (code, err) == (2, f"recurlab: {word}: run={str(run.path)!r} has come to {done}\n")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_training_ends_when_the_metric_is_good_enough(train):
    words = ["data={name: toy_regression}", "trainer.max_epochs=50", "trainer.stopping_threshold=100"]
    assert train(*QUICK, *words) == (0, "")
    assert json.loads(only_run("runs").result.read_text())["epochs"] == 1
