"""A run that has ended or was stopped goes on as if it had not, and with its own config."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import torch

from command_process import only_run
from command_process import run as run_command
from recurlab.compose import compose
from recurlab.training.job import digest
from stopped_runs import LANGUAGE, PROBLEMS, QUICK, assert_same, stopped, weights

pytestmark = pytest.mark.usefixtures("with_plugins")
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
