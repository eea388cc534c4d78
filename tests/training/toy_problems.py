"""Tiny data sets, one for each problem, registered as a user's module does.

Batches of training by 4 leave a last one of 1 sequence, and so do those of validation and test by 2.
"""

import os
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recurlab import RecurlabError, register_data
from recurlab.data.data import SPLITS, Arrays, Data, Ragged, RaggedData, Stream, StreamData

C, O = 3, 4  # noqa: E741
SIZES = {"train": 9, "valid": 5, "test": 7}


def rng_of(name):
    return np.random.default_rng(SPLITS.index(name))


@dataclass(frozen=True)
class _Ragged(RaggedData):
    batch_size: int = 4
    eval_batch_size: int = 2

    @property
    def input_size(self):
        return C

    @property
    def output_size(self):
        return O

    def split(self, name, seed, epoch):
        rng = rng_of(name)
        lengths = rng.integers(1, 8, SIZES[name])
        inputs = rng.normal(size=(lengths.sum(), C)).astype(np.float32)
        return Ragged(inputs, lengths, *self.targets(rng, lengths))


@register_data("toy_classification")
@dataclass(frozen=True)
class Classification(_Ragged):
    problem: ClassVar = "classification"

    def targets(self, rng, lengths):
        return rng.integers(0, O, len(lengths)), False


@register_data("toy_labelling")
@dataclass(frozen=True)
class Labelling(_Ragged):
    problem: ClassVar = "labelling"
    answer_steps: ClassVar = 2

    def targets(self, rng, lengths):
        return rng.integers(0, O, lengths.sum()), True


@register_data("toy_multilabel")
@dataclass(frozen=True)
class Multilabel(_Ragged):
    problem: ClassVar = "multilabel"

    def targets(self, rng, lengths):
        return rng.integers(0, 2, (lengths.sum(), O)).astype(np.float32), True


@register_data("toy_regression")
@dataclass(frozen=True)
class Regression(Data):
    """New training data in every epoch, and a single sequence for validation."""

    batch_size: int = 4
    eval_batch_size: int = 2
    problem: ClassVar = "regression"
    fresh: ClassVar = True

    @property
    def input_size(self):
        return C

    @property
    def output_size(self):
        return O

    def split(self, name, seed, epoch):
        rng = np.random.default_rng((SPLITS.index(name), epoch))
        size = 1 if name == "valid" else SIZES[name]
        inputs = rng.normal(size=(size, 6, C)).astype(np.float32)
        return Arrays(inputs, rng.normal(size=(size, O)).astype(np.float32))


@register_data("toy_language")
@dataclass(frozen=True)
class Language(StreamData):
    """Of several documents, and of a length that does not fill all parts."""

    batch_size: int = 4
    eval_batch_size: int = 2
    bptt: int = 8

    @property
    def input_size(self):
        return 5

    def split(self, name, seed, epoch):
        count = 12 * SIZES[name] + 1
        starts = np.array([0, 3, 4, 30, count // 2, count - 2])
        return Stream(rng_of(name).integers(0, 5, count).astype(np.uint8), starts, 0)


@register_data("toy_broken")
@dataclass(frozen=True)
class Broken(Regression):
    """The second process fails in the second epoch, while the first one waits for it."""

    def split(self, name, seed, epoch):
        if name == "train" and epoch == 1 and os.environ.get("LOCAL_RANK") == "1":
            raise RecurlabError("the second part of the data\nis broken")
        return super().split(name, seed, epoch)
