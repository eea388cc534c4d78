"""Several workers on one study, in processes of their own."""

import os
import signal
import time
from pathlib import Path

import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from command_process import start as start_command


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a command in a process of its own; all end with the test."""
    started = []

    def start(*words, **options):
        started.append(start_command(tmp_path, list(words), **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def said(tmp_path):
    """Return a function that gives the lines that all commands have said, and those that are errors."""

    def lines():
        found = (tmp_path / "said").read_text().splitlines()
        return found, [line for line in found if line.startswith("recurlab: ")]

    return lines


def wait_for(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_trials_on_two_workers_of_which_one_is_killed(start, said, toys, read, studies, tmp_path):
    space = ["sweep.space={seed: {low: 0, high: 5}}", "sweep.sampler=grid", "data.halt=2"]
    command = start("sweep", *toys, *space, "sweep.workers=2")
    wait_for(lambda: (tmp_path / "halted").exists() or not command.is_alive())
    (halting,) = (trial for trial in studies() if trial.params.get("seed") == 2)
    assert halting.state == TrialState.RUNNING
    os.kill(int(halting.user_attrs["worker"].split()[1]), signal.SIGKILL)
    command.join(240)
    lines, errors = said()
    assert command.exitcode == 0, lines
    assert errors == ["recurlab: a worker ended with code -9"]

    rows = read()
    assert sorted(int(row["seed"]) for row in rows) == list(range(6))
    assert len({row["trial"] for row in rows}) == 6
    assert {row["state"] for row in rows} == {"finished"}
    trials = studies()
    assert len(trials) == 7
    (again,) = (trial for trial in trials if RetryHeartbeatStaleTrialCallback.retry_history(trial))
    assert RetryHeartbeatStaleTrialCallback.retry_history(again) == [halting.number]
    assert [trial.state.name for trial in trials] == [
        "FAIL" if trial.number == halting.number else "COMPLETE" for trial in trials
    ]
    assert again.user_attrs["worker"] != halting.user_attrs["worker"]
    runs = [path.parent for path in tmp_path.glob("runs/toy_sweep/rnn/*/result.json")]
    assert len(runs) == 6, "the trial that was taken up again went on in its own run"
    assert "continued" in (tmp_path / again.user_attrs["run"] / "provenance.json").read_text()
    assert any(line.startswith("[6/6] trial ") for line in lines)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_commands_that_start_at_once_on_a_fresh_storage(count, start, said, toys, read, studies):
    words = [
        "sweep",
        *toys,
        "sweep.space={optimizer.lr: {low: 1e-3, high: 1e-1}}",
        f"sweep.trials={count}",
        "sweep.sampler=random",
    ]
    commands = [start(*words) for _ in range(count)]
    for command in commands:
        command.join(240)
    lines, errors = said()
    assert ([command.exitcode for command in commands], errors) == ([0] * count, [])
    trials = studies()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * count
    assert len({trial.params["optimizer.lr"] for trial in trials}) == count
    assert len({trial.user_attrs["run"] for trial in trials}) == count
    assert [row["trial"] for row in read()] == list("0123")[:count]
    begun = [line for line in lines if line.startswith("[")]
    assert sorted(int(line.split("trial ")[1].split(":")[0]) for line in begun) == list(range(count))


@pytest.mark.slow
def test_a_killed_server_of_processes_costs_no_trial(start, said, toys, read, studies, tmp_path):
    space = ["sweep.space={seed: {low: 0, high: 3}}", "sweep.sampler=grid", "data.halt=1"]
    command = start("sweep", *toys, *space, anew=True)  # with a server of its own
    wait_for(lambda: (tmp_path / "halted").exists() or not command.is_alive())
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    (server,) = (pid for pid in children if "multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(int(server), signal.SIGKILL)
    command.join(240)
    assert (command.exitcode, said()[1]) == (0, [])
    assert [(row["seed"], row["state"]) for row in read()] == [(f"{seed}", "finished") for seed in range(4)]
    assert [trial.state for trial in studies()] == [TrialState.COMPLETE] * 4
