"""Jobs whose processes are killed, and those that they come from: with a stand-in for the training."""

import os
import re
import signal
import threading
import time
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from recurlab.errors import RecurlabError
from recurlab.launch import fresh, jobs
from recurlab.launch.jobs import Job
from recurlab.training.job import Identity

# What a job's process does is the text of its config; `server` is the process that it comes from.
STAND_IN = """
import os, time
from pathlib import Path

def do(values):
    begun = len(list(Path().glob("begun.*")))
    Path(f"begun.{begun}").touch()
    exec(values["does"], {**globals(), "begun": begun, "server": os.getppid()})

def main(connection, life, values, *more):
    do(values)
    connection.send(("ended", "finished", "", ""))
    os._exit(0)

def check(connection, life, all_values):
    do(all_values[0])
    connection.send(("", [("loss", "min")]))
"""
KILL_SERVER = """
os.kill(server, 9)
while os.getppid() == server: time.sleep(0.01)
"""
KILL_BOTH = KILL_SERVER + "os.kill(os.getpid(), 9)"
KILL_BOTH_ONCE = "if not begun:" + KILL_BOTH.replace("\n", "\n    ")


@pytest.fixture(autouse=True)
def server(tmp_path, monkeypatch):
    """A server of processes that has nothing to import, and may be killed."""
    (tmp_path / "stand_in_job.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import stand_in_job

    monkeypatch.setattr(fresh, "job_main", stand_in_job.main)
    monkeypatch.setattr(fresh, "check_main", stand_in_job.check)
    mine = forkserver.ForkServer()
    mine.set_forkserver_preload([])
    monkeypatch.setattr(forkserver, "connect_to_new_process", mine.connect_to_new_process)
    yield mine
    mine._stop()


def job(does, stall_timeout=60):
    config = SimpleNamespace(experiment="toy", trainer=SimpleNamespace(stall_timeout=stall_timeout))
    return Job((), config, OmegaConf.create({"does": does}), Identity("name", "", {}, ""))


def begun():
    return len(list(Path().glob("begun.*")))


@pytest.mark.parametrize(
    ("does", "state", "reason", "times"),
    [
        ("pass", "finished", "", 1),
        ("os.kill(os.getpid(), 9)", "failed", "with code -9, as of one that takes more memory than there is", 1),
        ("os._exit(3)", "failed", "with code 3", 1),
        ("os.kill(os.getpid(), 15)", "preempted", "with code -15", 1),
        (KILL_SERVER, "finished", "", 1),
        (KILL_BOTH_ONCE, "finished", "", 2),
        (KILL_BOTH, "failed", "with code 255 3 times, as where the one that it comes from is killed", 3),
    ],
    ids=["nobody", "it", "it ends", "it is told to end", "its server", "both", "both again and again"],
)
def test_who_is_killed(monkeypatch, does, state, reason, times):
    monkeypatch.setattr(jobs, "TRIES", 3)
    outcome = jobs.run_job(job(does))
    assert outcome == (state, None, f"its process ended {reason}" if reason else "")
    assert begun() == times
    assert jobs.run_job(job("pass")).state == "finished"


def test_a_server_that_is_killed_while_a_job_is_asked_for(server):
    server.ensure_running()
    pid = server._forkserver_pid
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
    assert jobs.run_job(job("pass")).state == "finished"
    assert server._forkserver_pid != pid


def test_a_server_that_never_comes_up_is_said(server, monkeypatch):
    monkeypatch.setattr(jobs, "TRIES", 2)

    def dead(descriptors):
        raise EOFError

    monkeypatch.setattr(forkserver, "connect_to_new_process", dead)
    for ask in (jobs.run_job, lambda job: jobs.check_jobs([job])):
        with pytest.raises(RecurlabError, match=r"^no process can be started: what they come from ended 2 times$"):
            ask(job("pass"))


def test_a_job_is_told_to_end_though_its_server_is_gone():
    start, deaf = time.monotonic(), KILL_SERVER + "Path('ready').touch(); time.sleep(600)"
    assert jobs.run_job(job(deaf), told=lambda: Path("ready").exists()).state == "preempted"
    assert time.monotonic() - start < fresh.GRACE


def test_a_job_that_hangs_is_named_and_killed_once_it_is_told_to_end(monkeypatch, capfd):
    monkeypatch.setattr(fresh, "GRACE", 0.2)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); Path('ready').touch(); time.sleep(600)"
    start = time.monotonic()
    outcome = jobs.run_job(job(deaf, stall_timeout=0.3), told=lambda: Path("ready").exists())
    assert (outcome.state, outcome.path) == ("preempted", None)
    assert re.fullmatch(r"toy/name has made no step for \d s", outcome.reason)
    assert time.monotonic() - start < 120
    assert capfd.readouterr().err.startswith("recurlab: toy/name has made no step for ")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (KILL_BOTH_ONCE, ""),
        ("os.kill(os.getpid(), 9)", "the models could not be built, their process ended with code -9"),
    ],
)
def test_a_check_whose_process_is_killed(does, said):
    if not said:
        assert jobs.check_jobs([job(does)]) == [("loss", "min")]
        return
    with pytest.raises(RecurlabError, match=f"^{said}$"):
        jobs.check_jobs([job(does)])
