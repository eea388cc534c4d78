"""Sweeps of one worker, in this process: what is recorded, what is gone on with."""

import os
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from recurlab.errors import RecurlabError
from recurlab.launch.jobs import Outcome

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SPACE = "sweep.space={optimizer.lr: {low: 1e-3, high: 1e-1, log: true}, model.hidden_size: {low: 2, high: 4}}"


@pytest.mark.usefixtures("pictures")
def test_a_sweep_leaves_a_table_a_picture_and_the_best_words(recurlab, toys, read, tmp_path):
    words = [*(word.replace("toy_sweep,", "toy_sweep_of_classes,") for word in toys), "trainer.max_epochs=1", SPACE]
    folder = tmp_path / "runs/toy_sweep_of_classes/rnn"
    code, out, err = recurlab("sweep", *words, "sweep.trials=3")
    assert (code, err) == (0, "")
    rows = read(folder)
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {row["state"] for row in rows} == {"finished"}
    assert len({row["optimizer.lr"] for row in rows}) == 3
    assert {row["model.hidden_size"] for row in rows} <= {"2", "3", "4"}
    assert all(0.001 <= float(row["optimizer.lr"]) <= 0.1 for row in rows)
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert [line[:5] for line in out.splitlines()[:3]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "valid/accuracy" in out
    values = {row["run"]: float(row["value"]) for row in rows}
    assert len(set(values.values())) > 1
    (best,) = (line.split()[-1] for line in out.splitlines() if line.startswith("run:"))
    assert values[best] == max(values.values())
    (chosen,) = (row for row in rows if row["run"] == best)
    assert f"optimizer.lr={chosen['optimizer.lr']} model.hidden_size={chosen['model.hidden_size']}\n" in out

    files = sorted(folder.glob("*/*.*"))
    before = [path.stat().st_mtime_ns for path in files]
    code, again, _ = recurlab("sweep", *words, "sweep.trials=3")
    assert code == 0
    assert again.splitlines() == out.splitlines()[3:], "a finished sweep begins nothing"
    assert sorted(folder.glob("*/*.*")) == files
    assert [path.stat().st_mtime_ns for path in files] == before
    assert recurlab("sweep", "report", str(folder.relative_to(tmp_path)))[1].splitlines()[:4] == again.splitlines()[:4]
    code, more, _ = recurlab("sweep", *words, "sweep.trials=4")
    assert code == 0
    assert more.startswith("[4/4] trial 3: ")
    assert len(read(folder)) == 4


def test_what_goes_wrong_is_recorded_and_the_sweep_goes_on(recurlab, toys, read):
    space = "sweep.space={data.fate: [well,killed,not_a_number,no_memory,unfit,exit]}"
    code, out, err = recurlab("sweep", *toys, space, "sweep.sampler=grid")
    assert (code, err) == (0, "")
    found = {row["data.fate"]: (row["state"], row["reason"]) for row in read()}
    assert found.pop("well") == ("finished", "")
    assert {state for state, _ in found.values()} == {"failed"}
    reasons = {fate: reason for fate, (_, reason) in found.items()}
    assert reasons.pop("not_a_number").startswith("loss=nan: not finite at step 0")
    assert reasons == {
        "killed": "its process ended with code -9, as of one that takes more memory than there is",
        "exit": "its process ended with code 3",
        "no_memory": "MemoryError: no more of it",
        "unfit": "data.fate='unfit': does not go with the rest",
    }
    assert "1 trials finished, 5 failed" in out
    runs = {row["data.fate"] for row in read() if Path(row["run"], "status.json").is_file()}
    assert runs == {"well", "killed", "not_a_number", "no_memory", "exit"}, "the other has not begun"


def test_a_space_whose_first_corner_cannot_be_built_leaves_nothing(recurlab, toys, tmp_path):
    code, out, err = recurlab("sweep", *toys, "model.zoneout=[0.1,0.2]", SPACE)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "zoneout=[0.1, 0.2]: must be one number" in err
    assert not list(tmp_path.iterdir())


def test_hopeless_trials_are_pruned(recurlab, toys, read):
    space = "sweep.space={data.offset: [0.0,30.0,60.0]}"
    code, out, err = recurlab("sweep", *toys, space, "sweep.sampler=grid", "sweep.pruner=halving")
    assert (code, err) == (0, "")
    rows = read()
    assert [row["state"] for row in rows] == ["finished", "pruned", "pruned"]
    assert all((Path(row["run"]) / "checkpoints").is_dir() for row in rows)
    assert not (Path(rows[1]["run"]) / "result.json").exists()
    assert "1 trials finished, 2 pruned" in out


def test_a_worker_that_is_told_to_end_leaves_its_trial_to_the_next(recurlab, toys, read, studies):
    def tell():
        deadline = time.monotonic() + 60
        while not Path("halted").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    words = [*toys, "data.halt=0", "sweep.space={seed: {low: 0, high: 1}}", "sweep.sampler=grid"]
    threading.Thread(target=tell, daemon=True).start()
    code, out, err = recurlab("sweep", *words)
    assert code == 128 + signal.SIGTERM
    assert err == "recurlab: ended by SIGTERM with all trials kept; the same command goes on\n"
    assert "[0/2] trial 0: seed=0: is kept, and goes on when a worker takes it up\n" in out
    assert [trial.state.name for trial in studies()] == ["WAITING"]
    (halted,) = (
        path.parent
        for path in Path().rglob("last.ckpt")
        if "preempted" in (path.parents[1] / "status.json").read_text()
    )
    code, out, _ = recurlab("sweep", *words)
    assert code == 0
    assert [(row["trial"], row["seed"], row["state"]) for row in read()] == [
        (f"{n}", f"{n}", "finished") for n in range(2)
    ]
    assert Path(read()[0]["run"]) == halted.parent
    assert "continued" in (halted.parent / "provenance.json").read_text()


def test_another_sweep_of_the_same_name_is_refused(recurlab, toys, read, tmp_path):
    words = [*toys, "sweep.space={seed: [0]}", "sweep.trials=1"]
    assert recurlab("sweep", *words)[0] == 0
    where = tmp_path / "runs/toy_sweep/rnn/sweep.db"
    code, _, err = recurlab("sweep", *words, "sweep.space={seed: [0,1]}")
    assert (code, err) == (
        2,
        f"recurlab: sweep.space.seed='[0, 1]': the study 'toy_sweep/rnn' in {where} has '[0]'; "
        "give another sweep.name to begin a new one\n",
    )
    code, _, err = recurlab("sweep", *words, "model.hidden_size=2")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("recurlab: model.hidden_size=2: the study 'toy_sweep/rnn' in ")
    code, _, err = recurlab("sweep", *words, "data.fate=exit", "sweep.name=second")
    assert code == 2
    table = "runs/toy_sweep/rnn/second/results.csv"
    assert err == f"recurlab: {table}: no trial of 1 has a result; the first: its process ended with code 3\n"
    assert [row["state"] for row in read("runs/toy_sweep/rnn/second")] == ["failed"]


def test_a_trial_that_was_given_to_another_worker_after_a_silence(recurlab, toys, read, studies):
    def give_away():
        deadline = time.monotonic() + 60
        while not Path("halted").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        storage = RDBStorage("sqlite:///runs/toy_sweep/rnn/sweep.db")
        study = optuna.load_study(study_name="toy_sweep/rnn", storage=storage)
        (silent,) = study.get_trials(states=(TrialState.RUNNING,))
        storage.set_trial_state_values(silent._trial_id, TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(study, silent)
        storage.remove_session()
        storage.engine.dispose()

    thread = threading.Thread(target=give_away, daemon=True)
    thread.start()
    code, out, err = recurlab(
        "sweep", *toys, "data.halt=0", "sweep.space={seed: {low: 0, high: 1}}", "sweep.sampler=grid"
    )
    thread.join()
    assert (code, err) == (0, "")
    assert "trial 0: seed=0: is another worker's, after a silence of this one\n" in out
    assert [(row["trial"], row["seed"], row["state"]) for row in read()] == [
        ("0", "0", "finished"),
        ("2", "1", "finished"),
    ]
    assert [trial.state for trial in studies()] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


def test_workers_are_jobs_of_slurm_where_that_is_asked_for(recurlab, toys, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, says in {"sbatch": "Submitted batch job 7", "srun": ""}.items():
        (tools / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    code, out, err = recurlab("sweep", *toys, "launcher=slurm", "sweep.space={seed: [0]}", "sweep.workers=2")
    assert (code, err) == (0, "")
    assert out == "runs/toy_sweep/rnn: workers are the jobs 7, 7\n"
    script = next((tmp_path / "runs/toy_sweep/rnn/slurm").glob("*.sh")).read_text()
    assert "launcher=slurm 'sweep.space={seed: [0]}' sweep.workers=2 launcher=local sweep.workers=1" in script


def test_a_worker_that_can_start_no_process_leaves_its_trial(recurlab, toys, read, monkeypatch):
    words = [*toys, "trainer.max_epochs=1", "sweep.space={seed: [0]}", "sweep.sampler=grid"]

    def unable(*arguments, **options):
        raise RecurlabError("no process can be started")

    with monkeypatch.context() as patch:
        patch.setattr("recurlab.launch.queue.run_job", unable)
        assert recurlab("sweep", *words) == (2, "", "recurlab: no process can be started\n")
    code, out, err = recurlab("sweep", *words)
    assert (code, err) == (0, "")
    assert out.startswith("[1/1] trial 0: seed=0: valid/mse ")
    assert [(row["trial"], row["state"], row["reason"]) for row in read()] == [("0", "finished", "")]


def test_a_trial_that_is_lost_with_its_workers_is_told_by_the_exit_code(recurlab, toys, read, monkeypatch):
    def die(*arguments, **options):
        """Be given up by the others, as a worker that is killed is."""
        storage = RDBStorage("sqlite:///runs/toy_sweep/rnn/sweep.db")
        (silent,) = storage.get_all_trials(1, states=(TrialState.RUNNING,))
        storage.set_trial_state_values(silent._trial_id, TrialState.FAIL)
        storage.remove_session()
        storage.engine.dispose()
        return Outcome("finished")

    words = [*toys, "trainer.max_epochs=1", "sweep.space={seed: [0,1]}", "sweep.sampler=grid"]
    assert recurlab("sweep", *words, "sweep.trials=1")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("recurlab.launch.queue.run_job", die)
        code, out, err = recurlab("sweep", *words, "sweep.trials=2")
    assert (code, err) == (2, "recurlab: trial 1: its worker died, as did all that took it up again\n")
    assert "1 trials finished, 1 failed; the best:" in out
    assert [row["reason"] for row in read()] == ["", "its worker died, as did all that took it up again"]
