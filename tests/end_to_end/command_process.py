"""Command lines in processes of their own, which are there at once: they come from one that has torch imported."""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path

from forked import fork
from recurlab.training.run_dir import RunDir


def main(folder, words, environment, server):
    """Be the process of a command line: its output goes into the file `said` of the folder."""
    multiprocessing.set_start_method(None, force=True)  # as in any other process, for workers of its own
    if server is not None:  # what it starts is there at once, too
        forkserver._forkserver._forkserver_address = server
        forkserver._forkserver.ensure_running = lambda: None
        fork()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.update(environment, PYTHONPATH=str(folder))
    from recurlab.cli import main

    with Path("said").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    code = main(words)
    sys.stdout.flush()
    os._exit(code)


def start(folder, words, *, anew=False, **environment):
    """Start a command line and return its process; `anew`: what it starts itself are new processes, as a user's."""
    context = multiprocessing.get_context("forkserver")
    forkserver._forkserver.ensure_running()
    server = None if anew else forkserver._forkserver._forkserver_address
    process = context.Process(target=main, args=(folder, words, environment, server))
    process.start()
    return process


def run(folder, words, **options):
    """Run a command line and return its exit code, negative if it was killed."""
    process = start(folder, words, **options)
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def only_run(folder):
    """Return the run that is in a folder, the only one."""
    (status,) = Path(folder).rglob("status.json")
    return RunDir.open(status.parent)
