"""One of two processes that train several runs, one after another: python ddp_worker.py <run directory>..."""

import os
import sys

from recurlab.config import load
from recurlab.training.run import execute, prepare
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals

for path in sys.argv[1:]:
    run = RunDir.open(path)
    resolved = run.load_config()
    config = load(resolved)
    task, data = prepare(config, int(os.environ["LOCAL_RANK"]))
    execute(config, resolved, run, task, data, Signals())
    if data.rank:  # what the other process finds as well
        parameters = {name: p.detach() for name, p in task.named_parameters()}
        __import__("torch").save(parameters, run.path / "second.pt")
sys.stdout.flush()
os._exit(0)
