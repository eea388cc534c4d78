import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recurlab.errors import RecurlabError
from recurlab.training.loggers import Wandb


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "runs" / "adding" / "one"
    path.mkdir(parents=True)
    return path


@pytest.fixture(autouse=True)
def _nothing_stays_open(monkeypatch, tmp_path):
    """Whatever a test does, no run of it lasts; and the user's folders are empty ones."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("WANDB_API_KEY", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield
    Wandb().close()


CONFIG = {"experiment": "adding", "model": {"hidden_size": 7, "zoneout": [0.1, None]}, "seed": 3}


def write(spec, run, steps, start=0):
    """Log a row for each step, as a training does, and one of the validation every third."""
    (logger,) = spec.build(run, CONFIG, start)
    for step in range(start, start + steps):
        logger.log_metrics({"train/loss": 1 / (step + 1), "epoch": step // 3}, step=step)
        if step % 3 == 2:
            logger.log_metrics({"valid/loss": 2.0 * step}, step=step)
    return logger


def test_an_offline_run_holds_all_that_it_was_told(run, parts_of):
    best = run / "best.ckpt"
    best.write_bytes(os.urandom(70_001))
    spec = Wandb(project="mine", group="study", tags=["ablation", "T=100"])
    write(spec, run, 5)
    spec.finish(best, {"valid/loss": 0.25, "test/perplexity": math.inf})
    spec.close()
    (kept,) = parts_of(run)
    assert (kept.run.project, kept.run.run_group, list(kept.run.tags)) == ("mine", "study", ["ablation", "T=100"])
    assert kept.run.display_name == "adding/one"
    assert kept.run.run_id == json.loads((run / "wandb.json").read_text())["id"]
    assert {key: kept.config[key] for key in CONFIG} == CONFIG
    assert kept.column("train/loss") == [(10 * step, step, 1 / (step + 1)) for step in range(5)]
    assert kept.column("valid/loss") == [(21, 2, 4.0)]
    assert kept.step_metrics == {"trainer/global_step": "", "*": "trainer/global_step"}
    assert (kept.summary["valid/loss"], kept.summary["test/perplexity"]) == (0.25, math.inf)
    assert kept.summary["train/loss"] == 1 / 5
    (artifact,) = kept.artifacts
    assert (artifact.type, artifact.name) == ("model", f"model-{kept.run.run_id}")
    assert "best" in artifact.aliases
    assert json.loads(artifact.metadata) == {"valid/loss": 0.25, "test/perplexity": "inf"}
    (file,) = artifact.manifest.contents
    assert file.path == "best.ckpt"
    assert Path(file.local_path).is_relative_to(run.resolve())
    assert Path(file.local_path).read_bytes() == best.read_bytes()
    assert kept.exit_code == 0


def test_nothing_is_written_outside_the_run_directory(run, tmp_path, monkeypatch, parts_of):
    """Neither where the user's own wandb would write, nor in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    best = run / "best.ckpt"
    best.write_bytes(b"weights")
    spec = Wandb()
    write(spec, run, 2)
    spec.finish(best, {})
    spec.close()
    assert len(parts_of(run)) == 1
    assert {path for path in tmp_path.rglob("*") if path.is_file() and run not in path.parents} == set()


def test_a_continued_run_is_the_same_run_and_its_steps_go_on(run, parts_of):
    spec = Wandb()
    write(spec, run, 6)
    spec.close()
    moved = run.rename(run.with_name("moved"))
    time.sleep(1.1)  # the folder of each part is named after its second
    write(spec, moved, 4, start=6)
    spec.finish(moved / "wandb.json", {})
    spec.close()
    first, second = parts_of(moved)
    assert first.run.run_id == second.run.run_id
    assert first.run.resume
    assert second.run.resume
    rows = first.column("train/loss") + second.column("train/loss")
    assert [step for _, step, _ in rows] == list(range(10))
    numbers = [row["_step"] for row in first.rows + second.rows]
    assert numbers == sorted(set(numbers))
    assert (first.exit_code, second.exit_code) == (1, 0)  # the first was not finished


def test_a_row_is_numbered_after_its_step_whatever_came_before_it(run, parts_of):
    """So a part of a run that begins at the last checkpoint gives a row the number that it had."""
    spec = Wandb()
    write(spec, run, 6)
    spec.close()
    time.sleep(1.1)
    write(spec, run, 3, start=3)
    spec.close()
    first, second = (part.rows for part in parts_of(run))
    plain = [
        [{key: row[key] for key in row if key not in ("_timestamp", "_runtime")} for row in rows]
        for rows in (first, second)
    ]
    assert plain[1] == [row for row in plain[0] if row["trainer/global_step"] >= 3]


class Continued:
    """A run that the server knows up to its row number 50."""

    starting_step = 51

    def __init__(self):
        self.sent = []

    def log(self, row, step, commit):
        assert commit
        self.sent.append((step, row["loss"]))


def test_rows_that_the_server_has_are_not_sent_again():
    from recurlab.training.wandb_run import RunLogger

    run = Continued()
    logger = RunLogger(experiment=run, project="mine")
    for step in (3, 4, 5, 5, 6):
        logger.log_metrics({"loss": step / 2}, step=step)
    assert run.sent == [(51, 2.5), (60, 3.0)]


def test_more_rows_than_numbers_of_a_step_are_all_kept(run, parts_of):
    spec = Wandb()
    (logger,) = spec.build(run, CONFIG)
    for row in range(13):
        logger.log_metrics({"row": row}, step=0)
    logger.log_metrics({"row": 13}, step=1)
    spec.close()
    (kept,) = parts_of(run)
    assert [row["row"] for row in kept.rows] == list(range(14))


def test_jobs_of_one_process_are_runs_of_their_own(run, monkeypatch, parts_of):
    """Also where an agent has put a run's name into the environment."""
    theirs = {
        "WANDB_RUN_ID": "theirs", "WANDB_RESUME": "must", "WANDB_SWEEP_ID": "sweep", "WANDB_NAME": "theirs",
        "WANDB_RUN_GROUP": "theirs", "WANDB_TAGS": "theirs", "WANDB_PROJECT": "theirs",
    }  # fmt: skip
    for key, value in theirs.items():
        monkeypatch.setenv(key, value)
    kept = []
    for name in ("a", "b"):
        path = run.with_name(name)
        path.mkdir()
        write(Wandb(), path, 2)
        Wandb().close()
        kept += [part.run for part in parts_of(path)]
    assert kept[0].run_id != kept[1].run_id
    assert "theirs" not in {run.run_id for run in kept}
    for run in kept:
        assert (run.project, run.run_group, list(run.tags), run.sweep_id) == ("recurlab", "adding", [], "")
    assert [run.display_name for run in kept] == ["adding/a", "adding/b"]
    assert {key: os.environ[key] for key in theirs} == theirs


def test_wandb_that_is_switched_off_writes_nothing(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb().build(run, CONFIG) == []
    Wandb().finish(run / "best.ckpt", {})
    assert list(run.iterdir()) == []


def test_without_a_network_a_run_is_kept_offline_and_says_so(run, monkeypatch, capsys, parts_of):
    with socket.socket() as taken:  # nobody listens here
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
        start = time.monotonic()
        write(Wandb(), run, 3)
        assert time.monotonic() - start < 60
    Wandb().close()
    (kept,) = parts_of(run)
    assert len(kept.column("train/loss")) == 3
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("logger=wandb: ")]
    assert len(lines) == 1
    assert "connection refused" in lines[0]
    assert f"wandb sync {run}/wandb/offline-run-*" in lines[0]


def service_of_this_process():
    """The process id of wandb's service."""
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "wandb-core":
                return int(child)
    raise AssertionError("no service")


KILLED = """
import os, signal, sys, time
from pathlib import Path
from recurlab.training.loggers import Wandb
(logger,) = Wandb(group="study").build(Path(sys.argv[1]), {"experiment": "adding"})
for step in range(40):
    logger.log_metrics({"loss": float(step)}, step=step)
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def holders_of(run):
    """The open files of a run, whatever process has them."""
    holders = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if link.readlink().is_relative_to(run.resolve()):
                holders.append(link)
    return holders


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are looked up in /proc")
def test_a_run_that_is_killed_has_left_its_rows_and_no_service(run, parts_of):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(run)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (kept,) = parts_of(run)
    assert (kept.run.run_group, kept.exit_code) == ("study", None)
    assert [row["loss"] for row in kept.rows] == [float(step) for step in range(40)]
    deadline = time.monotonic() + 15
    while holders_of(run) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert holders_of(run) == []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="child processes are looked up in /proc")
def test_training_goes_on_where_the_service_was_killed(run, capsys, parts_of):
    (logger,) = Wandb().build(run, CONFIG)
    logger.log_metrics({"loss": 1.0}, step=0)
    os.kill(service_of_this_process(), signal.SIGKILL)
    for step in range(1, 50):
        logger.log_metrics({"loss": 1.0}, step=step)
        time.sleep(0.005)
    (run / "best.ckpt").write_bytes(b"weights")
    Wandb().finish(run / "best.ckpt", {})
    Wandb().close()
    print("and the result is said")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines if "wandb" in line] == [
        "logger=wandb: its service is gone",
        "logger=wandb: the best checkpoint is not logged",
        "logger=wandb: the run is not finished",
    ]
    assert lines[-1] == "and the result is said"
    following = run.with_name("following")
    following.mkdir()
    write(Wandb(), following, 2)  # the next job has a service of its own
    Wandb().close()
    (kept,) = parts_of(following)
    assert len(kept.rows) == 2


def test_a_checkpoint_that_is_gone_does_not_spoil_the_result(run, capsys, parts_of):
    write(Wandb(), run, 1)
    Wandb().finish(run / "best.ckpt", {"test/loss": 1.5})
    Wandb().close()
    assert capsys.readouterr().out.count("logger=wandb: the best checkpoint is not logged, ") == 1
    (kept,) = parts_of(run)
    assert (kept.summary["test/loss"], kept.artifacts, kept.exit_code) == (1.5, [], 0)


@pytest.mark.parametrize("content", ['{"id": "../../up"}', '{"id": 3}', "{}", "[]", "{"])
def test_a_damaged_identity_is_refused(run, content):
    (run / "wandb.json").write_text(content)
    with pytest.raises(RecurlabError, match=r"wandb\.json: "):
        Wandb().build(run, CONFIG)
    assert not (run / "wandb").exists()
