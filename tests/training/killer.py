"""A plugin that ends the process without warning after the step that the environment names, as "step:rank:whom"."""

import os
import signal

from recurlab.problems.problem import Problem

STEP, RANK, WHOM = os.environ.get("KILL_AT", "0:0:self").split(":")


def on_train_batch_end(self, *batch):
    if self.global_step == int(STEP) and os.environ.get("LOCAL_RANK", "0") == RANK:
        os.kill(os.getpid() if WHOM == "self" else os.getppid(), signal.SIGKILL)


Problem.on_train_batch_end = on_train_batch_end
