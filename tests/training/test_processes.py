"""The launcher with a shell script in the place of the training processes."""

import os
import sys
import time
from pathlib import Path

import pytest

from recurlab.errors import RecurlabError
from recurlab.training import processes
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals

COUNT = 3
TELL = r"""
tell() { printf '%s %s\n%s' "$1" $(date +%s%N) "$2" > "$reason.new"; mv "$reason.new" "$reason"; }
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Return a function that runs a script as each of the processes: $rank is its number, `tell` leaves a reason."""

    def run(script):
        path = tmp_path / "stand_in"
        path.write_text(f"#!/bin/bash\nrank=$LOCAL_RANK reason=$4\necho $$ > {tmp_path}/pid.$rank\n{TELL}{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        with Signals() as signals:
            return processes.run(RunDir(tmp_path), COUNT, signals)

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


OTHERS_LATER = 'until [ -s "$(dirname $reason)/2" ]; do sleep 0.005; done;'


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
    assert time.monotonic() - start < 10
    assert_all_ended(tmp_path)


def test_an_interrupt_of_the_terminal_comes_to_the_launcher_alone(launch, tmp_path):
    launch("cut -d ' ' -f 5 /proc/$$/stat > $(dirname $0)/group.$rank")
    groups = {int((tmp_path / f"group.{rank}").read_text()) for rank in range(COUNT)}
    assert os.getpgid(0) not in groups
