"""Polyphonic music as piano rolls (Boulanger-Lewandowski et al., arXiv 1206.6392)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recurlab.data.data import Ragged, RaggedData
from recurlab.data.files import Files
from recurlab.data.matlab import read_cells
from recurlab.errors import RecurlabError, check_choice

KEYS = 88  # of a piano: MIDI notes 21 to 108
FILES = {"jsb": "JSB_Chorales.mat", "nottingham": "Nottingham.mat"}
VARIABLES = {"train": "traindata", "valid": "validdata", "test": "testdata"}


@dataclass(frozen=True)
class Music(Files, RaggedData):
    """At each step the keys that sound in the next frame are predicted from all frames so far.

    A piece of T frames gives inputs 0 to T-2 and targets 1 to T-1, as in Bai et al., arXiv
    1803.01271. The split is that of the files.

    Attributes:
        collection: "jsb" (chorales of J. S. Bach; 229, 76 and 77 pieces) or "nottingham" (folk
            tunes; 694, 173, 170).
        dir: folder of JSB_Chorales.mat or Nottingham.mat; without one,
            ``$RECURLAB_DATA/polymusic``.
    """

    collection: str = "jsb"

    problem: ClassVar = "multilabel"
    ahead: ClassVar = True
    FOLDER: ClassVar[str] = "polymusic"
    SHA256: ClassVar[Mapping[str, str]] = {
        "JSB_Chorales.mat": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        "Nottingham.mat": "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.collection", self.collection, FILES)

    @property
    def reads(self) -> tuple[str, ...]:
        """The one file of the collection."""
        return (FILES[self.collection],)

    @property
    def input_size(self) -> int:
        """88 keys."""
        return KEYS

    @property
    def output_size(self) -> int:
        """88 keys."""
        return KEYS

    @property
    def chance(self) -> dict[str, float]:
        """The nats a frame of answering 1/2 for each key."""
        return {"nll": KEYS * math.log(2)}

    def split(self, name: str, seed: int, epoch: int) -> Ragged:
        """Return inputs and targets (S, 88), 1 where a key sounds."""
        pieces = _read(self.file(self.reads[0]), VARIABLES[name])
        inputs, targets = (np.concatenate(parts) for parts in ([p[:-1] for p in pieces], [p[1:] for p in pieces]))
        return Ragged(inputs, np.array([len(piece) - 1 for piece in pieces]), targets, per_step=True)


def _read(path: Path, variable: str) -> list[NDArray[np.float32]]:
    pieces = read_cells(path, variable)
    if not pieces:
        raise RecurlabError(f"{path}: {variable} holds no piece")
    return [_piece(f"{path}: {variable}{{{number}}}", piece) for number, piece in enumerate(pieces, 1)]


def _piece(where: str, piece: NDArray[np.generic]) -> NDArray[np.float32]:
    if piece.shape[1] != KEYS or len(piece) < 2:
        raise RecurlabError(f"{where}: is {len(piece)} x {piece.shape[1]}, must be at least 2 frames x {KEYS} keys")
    other = piece[(piece != 0) & (piece != 1)]
    if len(other):
        raise RecurlabError(f"{where}: holds {other[0]}, must hold only 0 and 1")
    return piece.astype(np.float32)
