"""A process that starts those of a run, as which a script stands in, to be killed."""

import os
import sys
import tempfile

from recurlab.training import processes
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals


def main(folder, count):
    os.environ["TMPDIR"], tempfile.tempdir = str(folder / "temporary"), None
    sys.executable = str(folder / "stand_in")
    processes.run_ranks(RunDir(folder), count, Signals(), 60)
