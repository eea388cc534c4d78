"""Grids: each job in a process and a directory of its own, which a later grid finds again."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from recurlab.cli import main
from recurlab.errors import RecurlabError
from recurlab.launch.jobs import Job, Outcome, check_jobs, run_job
from recurlab.launch.queue import run_all
from recurlab.training.run_dir import RunDir

WORDS = [
    "plugins=[toy_problems,misfortune]", "data={name: toy_classification}", "model.hidden_size=4", "backend=eager",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
]  # fmt: skip
# What befalls a job is told by the length of its training: the config is all that a job's process is given.
MISFORTUNE = """
import os, signal
from recurlab.problems.problem import Problem

def on_train_epoch_end(self):
    if "MISFORTUNE" not in os.environ:  # this module stays imported in the process of the tests
        return
    if self.trainer.max_epochs == 3 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if self.trainer.max_epochs == 4:
        raise ZeroDivisionError("by a user's code")
    if self.trainer.max_epochs == 6:
        try:
            os.close(os.open("told", os.O_CREAT | os.O_EXCL))  # by one of them, once
            os.kill(int(os.environ["WHO_WAITS"]), signal.SIGINT)
        except FileExistsError:
            pass

Problem.on_train_epoch_end = on_train_epoch_end
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_plugins(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).parents[1] / "training" / "toy_problems.py", tmp_path)
    (tmp_path / "misfortune.py").write_text(MISFORTUNE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MISFORTUNE", "1")


def results():
    return {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")}


def test_a_grid_is_run_once(capfd):
    grid = ["train", "-m", *WORDS, "cell=gru,rnn", "launcher.jobs=2"]
    assert main(grid) == 0
    first, out = results(), capfd.readouterr().out
    assert len(first) == 2
    assert {"[1/2]", "[2/2]"} <= set(out.split())
    assert main([*grid, "seed=0,1"]) == 0  # of these four two are there
    assert {path: time for path, time in results().items() if path in first} == first
    assert len(results()) == 4
    assert capfd.readouterr().out.count("test/accuracy") == 4


def test_what_happens_to_one_job_does_not_stop_the_others(capfd):
    grid = ["train", "-m", *WORDS, "trainer.max_epochs=3,4,2"]
    assert main(grid) == 2
    err = capfd.readouterr().err
    assert "recurlab: its process ended with code -9, as of one that takes more memory than there is\n" in err
    assert "recurlab: ZeroDivisionError: by a user's code\n" in err
    assert err.endswith("recurlab: 2 of 3 runs failed, each for the reason above\n")
    assert len(results()) == 1
    states = sorted(RunDir.open(path.parent).state for path in Path("runs").rglob("status.json"))
    assert states == ["failed", "finished", "running"]
    assert main(["train", "-m", *WORDS, "trainer.max_epochs=3,2"]) == 0  # the killed one goes on
    assert len(results()) == 2


def test_a_bad_job_is_found_before_the_first_one_runs(capfd):
    assert main(["train", "-m", *WORDS, "cell=gru,lstm", "model.zoneout=[0.1,0.2]"]) == 2
    assert capfd.readouterr().err == "recurlab: zoneout=[0.1, 0.2]: must be one number, or one for each of h\n"
    assert not Path("runs").exists()
    with pytest.raises(RecurlabError, match="zoneout"):
        check_jobs([Job.of([*WORDS, "model.zoneout=[0.1,0.2]"])])


def test_validations_are_told_and_may_end_a_run():
    told = []

    def ask(step, value):
        told.append((step, value))
        return len(told) == 2

    outcome = run_job(Job.of([*WORDS, "trainer.max_epochs=9"]), ask)
    assert outcome.state == "pruned"
    assert [step for step, _ in told] == [3, 6]
    assert all(0 <= value <= 1 for _, value in told)
    assert RunDir.open(outcome.path).state == "pruned"
    assert run_job(Job.of([*WORDS, "trainer.max_epochs=9"])).state == "finished"  # once it is asked for by someone else


def test_the_same_job_is_run_once():
    jobs = [Job.of(WORDS), Job.of([*WORDS, "trainer.num_workers=0"])]
    assert [outcome.state for _, outcome in run_all(jobs, 2)] == ["finished"]


def test_a_run_that_another_process_took_and_finished_has_not_failed(monkeypatch):
    attempts = []

    def run(job, **options):
        attempts.append(outcome := run_job(job, **options))
        # The first attempt is as if it had met another process, which has trained the run and ended since.
        return Outcome("failed", reason="another process is training it") if len(attempts) == 1 else outcome

    monkeypatch.setattr("recurlab.launch.queue.run_job", run)
    assert [outcome.state for _, outcome in run_all([Job.of(WORDS)], 1)] == ["finished"]
    assert len(attempts) == 2


def test_an_interrupt_ends_all_jobs_and_leaves_them_to_be_continued(capfd, monkeypatch):
    monkeypatch.setenv("WHO_WAITS", str(os.getpid()))
    words = ["train", "-m", *WORDS, "launcher.jobs=2", "seed=0,1"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert main([*words, "trainer.max_epochs=6"]) == 130
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err.startswith("recurlab: interrupted")
