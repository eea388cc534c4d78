"""A sweep of two commands in a real PostgreSQL that is stopped and started again: scripts/postgres_test starts both.

python postgres_check.py <folder of the runs> <address of the database> <command that ``stop`` and ``start`` go to>
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna

from awaited import TIMEOUT, wait

TRIALS, COMMANDS, WORKERS, AWAY = 14, 2, 2, 12.0
SWEEP = [
    "data=adding", "data.length=30", "data.train_size=1600", "data.valid_size=200", "data.test_size=200",
    "data.batch_size=16", "cell=lstm", "model.hidden_size=32", "trainer.max_epochs=4", "trainer.accelerator=cpu",
    f"sweep.space={{seed: {{low: 0, high: {TRIALS - 1}}}}}", "sweep.sampler=grid", f"sweep.workers={WORKERS}",
    "sweep.heartbeat=5",  # so that each worker asks the database while it is away
]  # fmt: skip


def below(parent: int, word: str) -> list[int]:
    """Return the processes with a word in their command line that come from a process."""
    found, parents = [], {parent}
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            line = (path / "cmdline").read_text()
        except OSError:  # ended meanwhile
            continue
        if above in parents:
            parents.add(int(path.name))
            found += [int(path.name)] if word in line else []
    return found


def main(folder: str, address: str, server: str) -> None:
    """Check all; the first check that fails ends it."""
    begin = time.monotonic()

    def say(name: str, line: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {name}: {line}", flush=True)

    def trials() -> list[optuna.trial.FrozenTrial]:
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).get_trials()

    def done() -> int:
        return Counter(trial.state.name for trial in trials())["COMPLETE"]

    words = [sys.executable, "-m", "recurlab", "sweep", *SWEEP, f"sweep.storage={address}", f"output_dir={folder}/runs"]
    pipe = subprocess.PIPE
    commands = [subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) for _ in range(COMMANDS)]
    storage = address.replace("postgresql:", "postgresql+psycopg:")
    try:
        wait("table", lambda: optuna.get_all_study_names(storage))
        wait("trial", lambda: done() >= 2)
        say("two commands of two workers", f"{done()} of {TRIALS} trials are done")
        victim = below(commands[0].pid, "multiprocessing.forkserver")[0]
        os.kill(victim, signal.SIGKILL)
        say("what a worker's trials come from", "killed")
        subprocess.run([*shlex.split(server), "stop", "--mode=fast"], check=True)
        say("the server", f"stopped for {AWAY:g} s")
        time.sleep(AWAY)
        assert all(command.poll() is None for command in commands)
        subprocess.run([*shlex.split(server), "start"], check=True)
        say("the server", f"started again; {done()} of {TRIALS} trials are done")
        said = [command.communicate(timeout=TIMEOUT) for command in commands]
    finally:
        for command in commands:
            command.kill()
    for (out, err), command in zip(said, commands, strict=True):
        assert command.returncode == 0, (out, err)
        lines = err.splitlines()
        assert all("': is away: " in line for line in lines), err
        assert 1 <= len(lines) <= 1 + WORKERS, err
        assert f"{TRIALS} trials finished; the best: " in out, out
    say("each command", "ended well, and said that it waits")
    found = trials()
    assert Counter(trial.state.name for trial in found) == {"COMPLETE": TRIALS}, found
    assert sorted(trial.params["seed"] for trial in found) == list(range(TRIALS))
    assert len({trial.user_attrs["run"] for trial in found}) == TRIALS
    assert len(list(Path(folder, "runs").rglob("result.json"))) == TRIALS
    told = [line for out, _ in said for line in out.splitlines() if "] trial " in line]
    begun = Counter(line.split(":")[0].split()[-1] for line in told)
    assert begun == {str(trial.number): 1 for trial in found}, begun
    say("trials", f"{TRIALS} of {TRIALS} are done, none twice")


if __name__ == "__main__":
    main(*sys.argv[1:])
