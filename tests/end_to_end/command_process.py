"""Command lines in processes of their own, which are there at once: they come from one that has torch imported."""

import multiprocessing
import os
import sys
from pathlib import Path

from recurlab.training.run_dir import RunDir


def main(folder, words, environment):
    """Be the process of a command line: its output goes into the file `said` of the folder."""
    multiprocessing.set_start_method(None, force=True)  # as in any other process, for workers of its own
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.update(environment, PYTHONPATH=str(folder))
    from recurlab.cli import main

    with Path("said").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os._exit(main(words))


def start(folder, words, **environment):
    """Start a command line and return its process."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=main, args=(folder, words, environment))
    process.start()
    return process


def run(folder, words, **environment):
    """Run a command line and return its exit code, negative if it was killed."""
    process = start(folder, words, **environment)
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def only_run(folder):
    """Return the run that is in a folder, the only one."""
    (status,) = Path(folder).rglob("status.json")
    return RunDir.open(status.parent)
