"""A plugin with the data of toy studies, of which an epoch takes a moment; it is copied to where a study is run."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from recurlab import RecurlabError, register_data
from recurlab.data.data import Arrays, Data


@register_data("toy_study")
@dataclass(frozen=True)
class ToyStudy(Data):
    """Logs each epoch and its process in the file "epochs"; fails in the second one if there is a file "broken"."""

    batch_size: int = 4
    eval_batch_size: int = 4
    length: int = 5  # this and what follows are for experiments of the adding problem
    markers: str = ""
    train_size: int = 8
    valid_size: int = 8
    test_size: int = 8

    problem: ClassVar = "regression"
    fresh: ClassVar = True
    chance: ClassVar = {"mse": 0.5}  # which is the loss
    input_size: ClassVar = 2
    output_size: ClassVar = 1

    def split(self, name, seed, epoch):
        if name == "train" and epoch:
            if epoch == 1 and Path("broken").exists():
                raise RecurlabError("the data are broken")
            with Path("epochs").open("a") as file:
                file.write(f"{os.getpid()} {epoch}\n")
            time.sleep(0.03)
        rng = np.random.default_rng((len(name), epoch, seed))
        inputs = rng.normal(size=(8, 5, 2)).astype(np.float32)
        return Arrays(inputs, inputs.sum(1)[:, :1])
