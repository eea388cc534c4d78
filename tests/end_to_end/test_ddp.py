"""Two processes on the CPU train what one does, and none is left behind."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest
import torch

import ddp_worker
from command_process import only_run, start
from command_process import run as run_command
from recurlab.cli import main
from recurlab.compose import compose
from recurlab.training.build import Facts
from recurlab.training.run_dir import RunDir, write_json

HERE = Path(__file__).parent
QUICK = [
    "plugins=[toy_problems]", "model.hidden_size=5", "trainer.max_epochs=2", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "optimizer=sgd", "optimizer.lr=0.3", "trainer.precision=64-true",
]  # fmt: skip
PROBLEMS = {
    "classification": ["model.bidirectional=true", "loss.ar=0.3", "loss.tar=0.2"],
    "labelling": ["loss.over_time=sum", "loss.ar=0.3", "loss.tar=0.2", "optimizer.lr=0.05"],
    "multilabel": ["trainer.gradient_clip_val=0.05"],
    "regression": ["optimizer.momentum=0.5"],
    "language": ["model.stateful=true", "cell=lstm", "loss.tar=0.2"],
    "language, random_bptt: true": ["model.stateful=true", "model.tie_weights=true", "model.encoder_size=5"],
}


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_toys(tmp_path, monkeypatch):
    shutil.copy(HERE.parent / "training" / "toy_problems.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def overrides(problem, *more):
    return [f"data={{name: toy_{problem}}}", *QUICK, *PROBLEMS.get(problem, []), *more]


def train(capfd, *arguments):
    """Return the exit code and the error output, that of the processes included."""
    code = main(["train", *arguments])
    return code, capfd.readouterr().err


def read(path):
    return json.loads(path.read_text())


def processes_in(folder):
    """Return the numbers of the processes that run in a folder, but for this one and those that serve it throughout."""
    servers = forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            where = path.readlink()
        except OSError:  # ended meanwhile
            continue
        if where == folder and int(path.parent.name) not in (os.getpid(), *servers):
            found.append(int(path.parent.name))
    return found


def assert_same_outcome(two, one):
    found, wanted = read(two.result), read(one.result)
    assert found["metrics"] == pytest.approx(wanted["metrics"], rel=1e-11, abs=1e-15)
    assert (found["epochs"], found["steps"]) == (wanted["epochs"], wanted["steps"])
    for name in ("best", "last"):
        states = [torch.load(run.checkpoints / f"{name}.ckpt", weights_only=True)["state_dict"] for run in (two, one)]
        torch.testing.assert_close(*states, rtol=1e-11, atol=1e-14)
    assert two.confusion.is_file() == one.confusion.is_file()
    if one.confusion.is_file():
        assert two.confusion.read_text() == one.confusion.read_text()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def environment(rank, port):
    return {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)}


def test_two_processes_train_what_one_does(tmp_path, capfd):
    """Each of the problems in turn, in one pair of processes."""
    runs, port = [], free_port()
    for problem in PROBLEMS:
        config, resolved = compose(overrides(problem, "trainer.devices=2", f"output_dir={tmp_path}/two"))
        runs.append(RunDir.create(config.output_dir, f"run_{len(runs)}", resolved))
    context, paths = multiprocessing.get_context("forkserver"), [run.path for run in runs]
    pair = [context.Process(target=ddp_worker.main, args=(environment(rank, port), paths)) for rank in (0, 1)]
    for process in pair:
        process.start()
    try:
        for process in pair:
            process.join(120)
            assert process.exitcode == 0
    finally:
        for process in pair:
            process.kill()
            process.join()
    for problem, run in zip(PROBLEMS, runs, strict=True):
        assert train(capfd, *overrides(problem, f"output_dir=one/{run.path.parent.name}")) == (0, "")
        assert_same_outcome(run, only_run(f"one/{run.path.parent.name}"))
        best = torch.load(run.best, weights_only=True)["state_dict"]
        second = torch.load(run.path / "second.pt", weights_only=True)
        assert second.keys() <= best.keys()
        for name, weight in second.items():
            assert torch.equal(weight, best[name]), name


def test_the_launcher_runs_the_processes_of_a_config(tmp_path, capfd):
    """That a fresh process of Python trains so too, the README's command with `trainer=ddp` shows."""
    given = overrides("language", "trainer=ddp", *QUICK)
    assert run_command(tmp_path, ["train", *given, "output_dir=two"]) == 0
    assert not re.search("^recurlab: |Warning|Error", Path("said").read_text(), re.MULTILINE)
    assert train(capfd, *given, "trainer.devices=1", "output_dir=one")[0] == 0
    two = only_run("two")
    assert_same_outcome(two, only_run("one"))
    assert read(two.status)["state"] == "finished"
    assert {path.name for path in two.path.iterdir()} == {path.name for path in only_run("one").path.iterdir()}
    assert not processes_in(tmp_path)


EACH = [pytest.param(name, marks=() if name == "language" else pytest.mark.slow) for name in PROBLEMS]


@pytest.mark.parametrize("problem", EACH)
def test_a_run_goes_on_in_another_number_of_processes(tmp_path, capfd, problem):
    """From two to one and from one to two, within an epoch."""
    words = overrides(problem, "backend=eager")
    assert train(capfd, *words, "output_dir=whole") == (0, "")
    for first, second in ((2, 1), (1, 2)):
        there = tmp_path / f"from_{first}"
        part = ["train", *words, f"trainer.devices={first}", "trainer.max_steps=2", f"output_dir={there}"]
        assert run_command(tmp_path, part) == 0
        run = only_run(there)
        again = f"resume={run.path}", f"trainer.devices={second}", "trainer.max_steps=-1", "plugins=[toy_problems]"
        assert run_command(tmp_path, ["train", *again]) == 0
        assert_same_outcome(run, only_run("whole"))
    assert "recurlab: " not in Path("said").read_text()


@pytest.mark.parametrize(
    ("words", "does"),
    [(["model.zoneout=0.1"], "draws random numbers of its own, as for dropout or zoneout"),
     (["model=batchnorm"], "normalises its part of a batch, on CPUs")],
)  # fmt: skip
def test_a_run_whose_numbers_would_be_others_keeps_its_number_of_processes(capfd, words, does):
    assert train(capfd, *overrides("classification", *words, "trainer.max_steps=2"))[0] == 0
    run = only_run("runs")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    again = f"resume={run.path}", "trainer.max_steps=-1", "plugins=[toy_problems]"
    code, err = train(capfd, *again, "trainer.devices=2")
    assert (code, err) == (
        2,
        f"recurlab: trainer.devices=2, trainer.num_nodes=1: run={str(run.path)!r} was trained with 1 in all, each "
        f"of which {does}: with 2 its numbers would be others\n",
    )
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert train(capfd, *again) == (0, "")


def test_a_process_that_fails_ends_the_run_with_its_reason(tmp_path):
    code = run_command(tmp_path, ["train", *overrides("broken", "trainer=ddp", *QUICK)])
    run = only_run("runs")
    kept = f"the last good checkpoint is {run.checkpoints}/best.ckpt"
    reason = f"the second part of the data is broken; {kept}"
    assert (code, Path("said").read_text()) == (2, f"recurlab: {reason}\n")
    assert read(run.status) == {"format": 3, "state": "failed", "reason": reason, "job": run.job}
    assert not processes_in(tmp_path)
    assert not run.result.exists()


def test_a_run_that_is_interrupted_leaves_no_process(tmp_path):
    given = overrides("language", "trainer=ddp", *QUICK, "trainer.max_epochs=100000", f"output_dir={tmp_path}/runs")
    command = start(tmp_path, ["train", *given])
    try:
        while not list(tmp_path.rglob("last.ckpt")):  # then it trains
            assert command.is_alive()
            time.sleep(0.05)
        assert len(processes_in(tmp_path)) == 3
        os.kill(command.pid, signal.SIGINT)
        command.join(60)
    finally:
        command.kill()
        command.join()
    run = only_run(tmp_path / "runs")
    said = f"recurlab: interrupted; the run is kept in {run.path}\n"
    assert (command.exitcode, Path("said").read_text()) == (130, said)
    assert read(run.status)["state"] == "interrupted"
    assert not processes_in(tmp_path)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """Whatever it was killed by: the pipe between them is closed then."""
    config, resolved = compose(overrides("regression", "trainer.devices=2"))
    run, port, (told, pipe) = RunDir.create(config.output_dir, "toy", resolved), free_port(), os.pipe()
    write_json(run.facts, Facts.of(config.data).write())
    command = [sys.executable, "-m", "recurlab.training.rank_process", run.path, str(pipe)]
    process = subprocess.Popen(command, env=environment(0, port), stdin=subprocess.PIPE, pass_fds=[pipe])
    os.close(pipe)
    try:
        while not listens(port):  # then it waits for a second one
            assert process.poll() is None
            time.sleep(0.05)
        process.communicate(timeout=20)
        assert process.returncode == 1
        assert os.read(told, 1) == b""
    finally:
        os.close(told)
        process.kill()
        process.wait()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
def test_a_text_that_cannot_be_shared_is_refused_before_anything_is_written(tmp_path, capfd, key):
    before = sorted(tmp_path.iterdir())
    code, err = train(capfd, *overrides(f"language, {key}: 3", "trainer=ddp", *QUICK))
    assert (code, err) == (2, f"recurlab: data.{key}=3: must be a multiple of the 2 processes\n")
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_more_devices_than_gpus_are_refused(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    code, err = train(capfd, *overrides("regression", "trainer=ddp", *QUICK, "trainer.accelerator=gpu"))
    assert (code, err) == (2, "recurlab: trainer.devices=2: this machine has 1 GPU(s)\n")


@pytest.mark.slow
def test_a_process_that_hangs_is_named_and_killed_once_the_run_is_told_to_end(tmp_path):
    given = overrides("language", "trainer=ddp", *QUICK, "trainer.max_epochs=100000", "trainer.stall_timeout=3")
    command = start(tmp_path, ["train", *given, f"output_dir={tmp_path}/runs"])
    said = tmp_path / "said"
    try:
        while not list(tmp_path.rglob("last.ckpt")):
            assert command.is_alive()
            time.sleep(0.05)
        os.kill(max(processes_in(tmp_path)), signal.SIGSTOP)  # the second one: it was started last
        while "made no step" not in said.read_text():
            assert command.is_alive()
            time.sleep(0.05)
        os.kill(command.pid, signal.SIGTERM)
        command.join(60)
    finally:
        command.kill()
        command.join()
    run, process = only_run(tmp_path / "runs"), r"process(es 0 and)? 1 of 2 ha(s|ve) made no step for \d+ s"
    assert command.exitcode == 128 + signal.SIGTERM
    first, last = said.read_text().splitlines()[0], said.read_text().splitlines()[-1]
    assert re.fullmatch(rf"recurlab: {process}", first), said.read_text()
    assert re.match(rf"recurlab: ended by SIGTERM and then killed: {process}; continue it with", last), said.read_text()
    assert read(run.status)["state"] == "preempted"
    assert not processes_in(tmp_path)
