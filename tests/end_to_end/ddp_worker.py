"""One of two processes that train several runs, one after another."""

import multiprocessing
import os
import sys

import torch

from recurlab.config import load
from recurlab.training.execute import Training, execute, prepare
from recurlab.training.run_dir import RunDir


def main(environment, paths):
    multiprocessing.set_start_method(None, force=True)  # as in any other process, for workers of its own
    os.environ.clear()
    os.environ.update(environment)
    for path in paths:
        run = RunDir.open(path)
        resolved = run.load_config()
        config = load(resolved)
        problem, data = prepare(config, int(os.environ["LOCAL_RANK"]))
        execute(Training(config, resolved, run, problem, data))
        if data.rank:  # what the other process finds as well
            torch.save({name: p.detach() for name, p in problem.named_parameters()}, run.path / "second.pt")
    sys.stdout.flush()
    os._exit(0)
