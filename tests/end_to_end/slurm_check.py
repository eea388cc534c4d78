"""Runs of two processes under a real Slurm, stopped in each way that it has: scripts/slurm_test starts both.

python slurm_check.py <folder of the runs>
"""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from awaited import wait

RUN = [
    "data=adding", "data.length=30", "data.train_size=1600", "data.valid_size=200", "data.test_size=200",
    "data.batch_size=16", "cell=lstm", "model.hidden_size=32", "model.zoneout=0.1", "trainer.max_epochs=12",
    "trainer.accelerator=cpu", "trainer.devices=2", "trainer.enable_progress_bar=false",
]  # fmt: skip
JOB = [*RUN, "launcher=slurm", "launcher.cpus_per_task=1"]


def shell(line: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def recurlab(*words: str) -> str:
    return shell(shlex.join([sys.executable, "-m", "recurlab", "train", *words]))


class Run:
    """A run that has been submitted.

    Args:
        words: of the command line, besides those of all runs.
    """

    def __init__(self, *words: str) -> None:
        told = recurlab(*words)
        found = re.fullmatch(r"(.+) is job (\d+)\n", told)
        assert found, told
        self.path, self.job = Path(found[1]), found[2]

    def shown(self, key: str) -> str:
        """Return what Slurm says of the job."""
        found = re.search(rf"\b{key}=(\S+)", shell(f"scontrol show job {self.job}"))
        assert found, key
        return found[1]

    def read(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.path / name).read_text())
        return content

    def checkpoint(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(self.path / "checkpoints" / name, weights_only=True)
        return content

    def step(self) -> int:
        """Return from where it would go on, 0 while that is being written."""
        try:
            return int(self.checkpoint("last.ckpt")["global_step"])
        except FileNotFoundError:
            return 0

    def minutes(self) -> int:
        """Return how long the job has run."""
        hours, minutes, _ = self.shown("RunTime").split(":")
        return int(hours) * 60 + int(minutes)

    def trains(self) -> None:
        """Wait until it is in the middle of its training."""
        wait("checkpoint", self.step)

    def ends(self, state: str = "COMPLETED") -> None:
        """Wait for the end of the job."""
        ended = wait("end", lambda: (now := self.shown("JobState")) not in ("PENDING", "RUNNING", "COMPLETING") and now)
        assert ended == state, ended

    def stopped(self, by: str) -> int:
        """Wait until it is back in the queue, and return the step to which it has come."""
        wait("requeue", lambda: self.shown("Restarts") == "1")
        wait("end of the first part", lambda: self.shown("JobState") == "PENDING")
        status = self.read("status.json")
        assert status["state"] == "preempted", status
        found = re.fullmatch(rf"ended by {by} after step (\d+)", status["reason"])
        assert found, status
        assert self.step() == int(found[1])
        return int(found[1])


def assert_same(found: Run, wanted: Run, parts: int) -> None:
    """Compare how two runs have ended, the first of which did so in several parts."""
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = found.checkpoint(name)["state_dict"], wanted.checkpoint(name)["state_dict"]
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            assert torch.equal(ours[key], weight), f"{name}: {key} differs"
    for key in ("metrics", "steps", "epochs"):
        assert found.read("result.json")[key] == wanted.read("result.json")[key], key
    assert (found.path / "metrics.csv").read_text() == (wanted.path / "metrics.csv").read_text()
    assert len(found.read("provenance.json").get("continued", [])) == parts - 1
    assert found.read("status.json")["state"] == "finished"


def urgent() -> None:
    """Submit a job that needs all of Slurm's processors."""
    shell("sbatch --partition=urgent --nodes=2 --exclusive --output=/dev/null --wrap 'sleep 3'")


def preempted(folder: str, whole: Run, partition: str) -> str:
    run = Run(*JOB, f"output_dir={folder}/{partition}", f"launcher.partition={partition}")
    run.trains()
    urgent()
    step = run.stopped("SIGTERM")
    run.ends()
    assert_same(run, whole, parts=2)
    return f"stopped after step {step} of {run.read('result.json')['steps']}, finished with the same weights"


def time_limit(folder: str) -> str:
    run = Run(*JOB, f"output_dir={folder}/time", "launcher.time=60", "trainer.max_epochs=1000")
    run.trains()
    shell(f"scontrol update JobId={run.job} TimeLimit={run.minutes() + 1}")
    step = run.stopped("SIGUSR2")
    shell(f"scontrol update JobId={run.job} TimeLimit=60")
    wait("further step", lambda: run.step() > step)
    shell(f"scancel {run.job}")
    run.ends("CANCELLED")
    return f"put back after step {step}, and gone on"


def cancelled(folder: str, whole: Run) -> str:
    run = Run(*JOB, f"output_dir={folder}/cancelled")
    run.trains()
    shell(f"scancel {run.job}")
    run.ends("CANCELLED")
    time.sleep(8)  # what is put back would start after 5
    assert run.shown("JobState") == "CANCELLED"
    again = Run(f"resume={run.path}", "launcher=slurm")
    assert again.path == run.path
    assert again.job != run.job
    assert Run(f"resume={run.path}", "launcher=slurm").job == again.job
    again.ends()
    assert_same(again, whole, parts=2)
    return f"not put back; job {again.job}, submitted twice, finished it with the same weights"


def two_machines(folder: str, whole: Run) -> str:
    here = '"export MASTER_ADDR=127.0.0.1"'  # no name server knows these two
    run = Run(*JOB, f"output_dir={folder}/two", "trainer.devices=1", "trainer.num_nodes=2", f"launcher.setup=[{here}]")
    run.ends()
    assert run.shown("NodeList") == "one,two"
    assert_same(run, whole, parts=1)
    return "the same weights as two processes of one machine"


def wrong_launch(folder: str) -> str:
    words = ["srun", "--ntasks=3", "--nodes=2", sys.executable, "-m", "recurlab", "train", *RUN]
    done = subprocess.run([*words, f"output_dir={folder}/wrong"], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    assert "but srun has started 3" in done.stderr, done.stderr
    assert not Path(folder, "wrong").exists()
    return "refused with exit code 2"


def main(folder: str) -> None:
    """Check all; the first check that fails ends it."""
    start = time.monotonic()

    def say(name: str, line: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {name}: {line}", flush=True)

    whole = Run(*JOB, f"output_dir={folder}/whole")
    whole.ends()
    assert whole.read("status.json")["state"] == "finished"
    say("uninterrupted", f"{whole.read('result.json')['steps']} steps")
    say("preempted, with a time of grace", preempted(folder, whole, "grace"))
    say("preempted, without", preempted(folder, whole, "at_once"))
    say("time limit", time_limit(folder))
    say("cancelled", cancelled(folder, whole))
    say("two machines", two_machines(folder, whole))
    say("three processes for a run of two", wrong_launch(folder))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception:
        for path in sorted(Path(sys.argv[1]).rglob("slurm/*.out")):
            print(f"{path}:\n{path.read_text()}", file=sys.stderr)
        raise
