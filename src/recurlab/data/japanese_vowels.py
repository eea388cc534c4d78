"""Japanese vowels: who of nine speakers says /ae/ (Kudo et al., Pattern Recognition Letters 20, 1999; UCI archive)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recurlab.data.data import Ragged, RaggedData
from recurlab.data.files import Files, text_of
from recurlab.data.ragged import standardised, take
from recurlab.errors import RecurlabError, check_integer, unknown

TRAIN, TEST = "JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts"
CHANNELS = 12
SPEAKERS = tuple("123456789")
HEADER = {"dimensions": [str(CHANNELS)], "classlabel": ["true", *SPEAKERS], "timestamps": ["false"]}


@dataclass(frozen=True)
class JapaneseVowels(Files, RaggedData):
    """Utterances of 7 to 29 frames of 12 cepstral coefficients; the target is the speaker.

    270 of them are for training, 30 by each speaker, and 370 for test.

    Attributes:
        standardise: whether each coefficient gets mean 0 and variance 1 over the frames of
            training.
        valid_size: training utterances put aside for validation, drawn with `split_seed`, of each
            speaker alike.
        dir: folder of JapaneseVowels_TRAIN.ts and _TEST.ts; without one,
            ``$RECURLAB_DATA/japanese-vowels``.
    """

    standardise: bool = True
    valid_size: int = 27
    split_seed: int = 0

    problem: ClassVar = "classification"
    FOLDER: ClassVar[str] = "japanese-vowels"
    SHA256: ClassVar[Mapping[str, str]] = {
        TRAIN: "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        TEST: "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("data.valid_size", self.valid_size)
        check_integer("data.split_seed", self.split_seed, low=0, high=2**32 - 1)

    @property
    def reads(self) -> tuple[str, ...]:
        """A file for training, and one for test."""
        return TRAIN, TEST

    @property
    def input_size(self) -> int:
        """12 coefficients."""
        return CHANNELS

    @property
    def output_size(self) -> int:
        """9 speakers."""
        return len(SPEAKERS)

    @property
    def names(self) -> tuple[str, ...]:
        """The speakers, "1" to "9"."""
        return SPEAKERS

    @property
    def chance(self) -> dict[str, float]:
        """One in nine."""
        return {"accuracy": 1 / len(SPEAKERS)}

    def split(self, name: str, seed: int, epoch: int) -> Ragged:
        """Return the frames (S, 12) and the speakers (N,), from 0."""
        spoken = self._spoken
        if self.valid_size >= len(spoken.lengths):
            raise RecurlabError(
                f"data.valid_size={self.valid_size}: must be less than the {len(spoken.lengths)} utterances"
            )
        aside = _stratified(spoken.targets, self.valid_size, self.split_seed)
        chosen = _read(self.file(TEST)) if name == "test" else take(spoken, aside if name == "valid" else ~aside)
        if not self.standardise:
            return chosen
        return chosen._replace(inputs=standardised(take(spoken, ~aside).inputs, chosen.inputs))

    @cached_property
    def _spoken(self) -> Ragged:
        return _read(self.file(TRAIN))


def _stratified(labels: NDArray[np.generic], size: int, seed: int) -> NDArray[np.bool_]:
    """Return True for `size` of the labels, drawn so that each value keeps its share as nearly as possible."""
    order = np.random.RandomState(seed).permutation(len(labels))
    rank = np.empty(len(labels))  # of each among those of its label, scaled to (0, 1)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[order[np.argsort(rank[order], kind="stable")[:size]]] = True
    return chosen


def _read(path: Path) -> Ragged:
    """Return the utterances of a .ts file: comments, a header of lines @key, then a line for each."""
    header: dict[str, list[str]] = {}
    utterances: list[NDArray[np.float32]] = []
    labels: list[int] = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        words = line.split()
        if not words or words[0][0] in "#%":
            continue
        if "data" in header:
            utterance, label = _utterance(f"{path}: line {number}", line)
            utterances.append(utterance)
            labels.append(label)
        elif words[0][0] == "@":
            header[words[0][1:].lower()] = words[1:]
        else:
            raise RecurlabError(f"{path}: line {number}: before @data each line must begin with @ or #")
    _check(path, header)
    if not labels:
        raise RecurlabError(f"{path}: no utterance follows @data")
    return Ragged(np.concatenate(utterances), np.array([len(u) for u in utterances]), np.array(labels))


def _check(path: Path, header: Mapping[str, list[str]]) -> None:
    """Raise unless the header says what the data must be."""
    for key in ("data", "dimensions", "classlabel"):
        if key not in header:
            raise RecurlabError(f"{path}: has no line @{key}, so it is not this data set in the .ts format")
    for key, wanted in HEADER.items():
        if header.get(key, wanted) != wanted:
            raise RecurlabError(f"{path}: @{key} {' '.join(header[key])}: must be {' '.join(wanted)}")


def _utterance(where: str, line: str) -> tuple[NDArray[np.float32], int]:
    """Return the frames (T, 12) and the speaker's number of ``channel:channel:...:label``."""
    *channels, label = line.strip().split(":")
    if len(channels) != CHANNELS:
        raise RecurlabError(f"{where}: has {len(channels)} channels, must have {CHANNELS} and a label")
    if label not in SPEAKERS:
        raise unknown(f"{where}: label", label, SPEAKERS)
    rows = [_numbers(f"{where}: channel {number}", text) for number, text in enumerate(channels, 1)]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise RecurlabError(f"{where}: channel {number} has {len(row)} values, channel 1 has {len(rows[0])}")
    return np.array(rows, np.float32).T, SPEAKERS.index(label)


def _numbers(where: str, text: str) -> list[float]:
    if not text:
        raise RecurlabError(f"{where}: is of length 0")
    numbers = []
    for value in text.split(","):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not abs(number) < 1e30:  # larger ones overflow float32 when squared
            raise RecurlabError(f"{where}: {value!r} must be a finite number")
        numbers.append(number)
    return numbers
