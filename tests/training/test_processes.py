"""The launcher with a shell script in the place of the training processes."""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import rank_parent
from recurlab.errors import Preempted, RecurlabError
from recurlab.training import processes
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals

COUNT = 3
TELL = r"""
tell() { printf '!%s %s %s' "$1" $(date +%s%N) "$2" >&$pipe; touch $here/told.$rank; }
step() { printf . >&$pipe; }
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Return a function that runs a script as each of the processes: $rank is its number, `tell` gives a
    reason, `step` a sign of life."""

    def run(script, patience=60):
        path = tmp_path / "stand_in"
        path.write_text(
            f"#!/bin/bash\nrank=$LOCAL_RANK pipe=$4 here={tmp_path}\necho $$ > $here/pid.$rank\n{TELL}{script}\n"
        )
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        with Signals() as signals:
            return processes.run_ranks(RunDir(tmp_path), COUNT, signals, patience)

    return run


def assert_all_ended(folder):
    pids = [int(path.read_text()) for path in folder.glob("pid.*")]
    assert len(pids) == COUNT
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_it_waits_for_all(launch, tmp_path):
    launch("sleep 0.$rank; touch $(dirname $0)/done.$rank")
    assert len(list(tmp_path.glob("done.*"))) == COUNT
    assert_all_ended(tmp_path)


def test_each_knows_its_place_and_all_meet_at_one(launch, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch('echo $LOCAL_RANK $MASTER_ADDR $MASTER_PORT $3 > "$(dirname $0)/told.$rank"')
    told = [(tmp_path / f"told.{rank}").read_text().split() for rank in range(COUNT)]
    assert [words[0] for words in told] == ["0", "1", "2"]
    assert len({tuple(words[1:]) for words in told}) == 1
    assert told[0][3] == str(tmp_path)


OTHERS_LATER = "until [ -e $here/told.2 ]; do sleep 0.005; done;"


@pytest.mark.parametrize("end", ["tell 1 'lost a process'; exit 1", "kill -ABRT $$"])
@pytest.mark.parametrize("slow", ["", "sleep 0.2"])
def test_the_reason_is_that_of_the_first_to_fail(launch, tmp_path, end, slow):
    """The others have lost it a moment later, be it before it has ended."""
    with pytest.raises(RecurlabError, match=r"^the data are broken$"):
        launch(f"if [ $rank = 2 ]; then tell 1 'the data are broken'\n{slow}\nexit 1; fi\n{OTHERS_LATER} {end}")
    assert_all_ended(tmp_path)


def test_the_reason_is_an_error_of_recurlab_where_one_process_had_such(launch, tmp_path):
    with pytest.raises(RecurlabError, match=r"^the data are broken$"):
        launch(
            f"if [ $rank = 2 ]; then tell 1 'lost a process'; exit 1; fi\n{OTHERS_LATER} "
            "tell 0 'the data are broken'; exit 1"
        )
    assert_all_ended(tmp_path)


def test_a_process_that_was_killed_is_named(launch, tmp_path):
    with pytest.raises(RecurlabError, match=r"^process 1 of 3 ended with code -9$"):
        launch("if [ $rank = 1 ]; then sleep 0.2; kill -9 $$; fi; exec sleep 100")
    assert_all_ended(tmp_path)


def test_a_process_that_does_not_end_when_it_is_told_to_is_killed(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.3)
    start = time.monotonic()
    stubborn = "trap '' TERM; while true; do sleep 0.1; done"
    with pytest.raises(RecurlabError, match=r"^broken$"):
        launch(f"if [ $rank = 0 ]; then sleep 0.3; tell 0 broken; exit 1; fi; {stubborn}")
    assert time.monotonic() - start < 120
    assert_all_ended(tmp_path)


def test_an_interrupt_of_the_terminal_comes_to_the_launcher_alone(launch, tmp_path):
    launch("cut -d ' ' -f 5 /proc/$$/stat > $(dirname $0)/group.$rank")
    groups = {int((tmp_path / f"group.{rank}").read_text()) for rank in range(COUNT)}
    assert os.getpgid(0) not in groups


def hang(rank, how="while true; do sleep 0.02; done"):
    """Return the script of processes that make steps, of which one ends it and is deaf then."""
    return f"trap '' TERM; for i in 1 2 3; do step; sleep 0.02; done; if [ $rank != {rank} ]; then step; fi; {how}"


@pytest.mark.parametrize(
    ("rank", "which"), [("1", "process 1 of 3 has"), ("none", "processes 0 and 1 and 2 of 3 have")]
)
def test_processes_that_hang_are_named_and_killed_once_they_are_told_to_end(
    launch, tmp_path, monkeypatch, capfd, rank, which
):
    monkeypatch.setattr(processes, "GRACE", 0.1)
    timer = threading.Timer(1.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    start = time.monotonic()
    with pytest.raises(Preempted, match=rf"^ended by SIGTERM and then killed: {which} made no step for \d s$"):
        launch(hang(rank), patience=0.5)
    assert time.monotonic() - start < 120
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(rf"recurlab: {which} made no step for \d s", lines[0])
    assert len(lines) <= 2, "the next one after twice the time"
    assert_all_ended(tmp_path)


def test_who_makes_steps_is_neither_called_hanging_nor_killed(launch, capfd):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    slow = "trap 'told=1' TERM; for i in $(seq 12); do step; sleep 0.05; done; [ -z \"$told\" ] || exit 143"
    with pytest.raises(Preempted, match=r"^ended by SIGTERM with its last checkpoint in place$"):
        launch(slow, patience=0.5)
    assert capfd.readouterr().err == ""


RANK = """#!{python}
import os, signal
from pathlib import Path
from recurlab.parents import die_with_parent
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
die_with_parent()
Path("{folder}/pid." + os.environ["LOCAL_RANK"]).write_text(str(os.getpid()))
while True: signal.pause()
"""


def test_a_killed_parent_leaves_neither_processes_nor_files(tmp_path):
    """Also where they hang, and so can't see to their end themselves."""
    (tmp_path / "stand_in").write_text(RANK.format(python=sys.executable, folder=tmp_path))
    (tmp_path / "stand_in").chmod(0o755)
    (tmp_path / "temporary").mkdir()
    parent = multiprocessing.get_context("forkserver").Process(target=rank_parent.main, args=(tmp_path, COUNT))
    parent.start()
    wait_until(lambda: len([path for path in tmp_path.glob("pid.*") if path.read_text()]) == COUNT)
    parent.kill()
    parent.join()
    pids = [int(path.read_text()) for path in tmp_path.glob("pid.*")]
    wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
    assert not list((tmp_path / "temporary").iterdir())


def wait_until(found):
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)
