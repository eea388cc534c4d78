"""The Free Spoken Digit Dataset: ten digits by six speakers, fifty times each (Jackson et al., CC BY-SA 4.0)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.data.cache import cached
from recurlab.data.data import Ragged, RaggedData
from recurlab.data.files import Files, sha256_of
from recurlab.data.log_mel import VERSION, log_mel, read_wav
from recurlab.data.progress import track
from recurlab.data.ragged import standardised, take
from recurlab.errors import RecurlabError, check_integer, one_line
from recurlab.foreign import check_archive, open_file

PREPARED = "fsdd_logmel24.npz"
BANDS = 24
RATE = 8000  # samples a second
TEST_TAKES = 5
DIGITS = tuple("0123456789")
NAME = re.compile(r"([0-9])_([^_]+)_([0-9]{1,6})\.wav", re.IGNORECASE)


class Recordings(NamedTuple):
    """N recordings and which take of its digit and speaker each one is, (N,)."""

    spoken: Ragged
    takes: NDArray[np.int64]


@dataclass(frozen=True)
class FSDD(Files, RaggedData):
    """Recordings as 24 log-mel bands each 10 ms, 12 to 226 frames; the target is the digit.

    Takes 0 to 4 of each digit and speaker are the test split, as the data set says, and the others
    are for training. Each band has mean 0 and variance 1 over the frames of training.

    Attributes:
        valid_takes: how many takes, from the fifth on, are put aside for validation.
        dir: folder of fsdd_logmel24.npz, or of the original recordings, as 7_theo_12.wav, or above
            their folder "recordings". Their bands are computed (`recurlab.data.log_mel`) and differ
            from the numbers in the npz. Without one, ``$RECURLAB_DATA/fsdd``.
    """

    valid_takes: int = 5

    problem: ClassVar = "classification"
    FOLDER: ClassVar[str] = "fsdd"
    SHA256: ClassVar[Mapping[str, str]] = {PREPARED: "10d7ff5a1d00db2aa360a4a5067bb867937e53fe23c1cd0f22e57ef2ec53615e"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("data.valid_takes", self.valid_takes, high=49 - TEST_TAKES)

    def sources(self) -> Mapping[str, Path]:
        """Return the npz, or the recordings."""
        folder = self.folder()
        prepared = folder is None or (folder / PREPARED).is_file()
        recordings = [] if folder is None or prepared else _recordings_in(folder)
        return {path.name: path for path in recordings} or super().sources()

    @property
    def reads(self) -> tuple[str, ...]:
        """The npz."""
        return (PREPARED,)

    @property
    def input_size(self) -> int:
        """24 bands."""
        return BANDS

    @property
    def output_size(self) -> int:
        """10 digits."""
        return len(DIGITS)

    @property
    def names(self) -> tuple[str, ...]:
        """The digits."""
        return DIGITS

    @property
    def chance(self) -> dict[str, float]:
        """One in ten."""
        return {"accuracy": 0.1}

    def split(self, name: str, seed: int, epoch: int) -> Ragged:
        """Return the frames (S, 24) and the digits (N,)."""
        spoken, takes = self._recordings
        first = TEST_TAKES + self.valid_takes
        rows = {"train": takes >= first, "valid": (takes >= TEST_TAKES) & (takes < first), "test": takes < TEST_TAKES}
        for part, has in rows.items():
            if not has.any():
                allowed = {"train": f"from {first} on", "valid": f"{TEST_TAKES} to {first - 1}", "test": "0 to 4"}[part]
                raise RecurlabError(f"data.dir={str(self.folder())!r}: no recording for {part}, the takes {allowed}")
        chosen = take(spoken, rows[name])
        return chosen._replace(inputs=standardised(take(spoken, rows["train"]).inputs, chosen.inputs))

    @cached_property
    def _recordings(self) -> Recordings:
        folder = self.folder()
        if folder is None or (folder / PREPARED).is_file():
            return _read_prepared(self.file(PREPARED))
        paths = _recordings_in(folder)
        if not paths:
            raise RecurlabError(
                f"data.dir={str(folder)!r}: holds neither {PREPARED}, sha256 {self.SHA256[PREPARED]},"
                " nor recordings named as 7_theo_12.wav"
            )
        return _read_recordings(paths)


def _recordings_in(folder: Path) -> list[Path]:
    for candidate in (folder, folder / "recordings"):
        if found := sorted(path for path in candidate.glob("*") if path.suffix.lower() == ".wav"):
            return found
    return []


def _read_prepared(path: Path) -> Recordings:
    """Return what an npz file holds in its arrays feats (S, 24), len, label and index (N,)."""
    wanted = ("feats", "len", "label", "index")
    try:
        with open_file(path) as file, check_archive(file), np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in wanted if name in arrays}
    except Exception as error:  # a damaged file raises errors of many classes
        raise RecurlabError(
            f"{path}: damaged or no npz file ({type(error).__name__}: {one_line(error)[:100]})"
        ) from error
    for name in wanted:
        if name not in found:
            raise RecurlabError(f"{path}: has no array {name!r}; needed are {', '.join(wanted)}")
    feats, *columns = (found[name] for name in wanted)
    count = len(found["len"]) if found["len"].ndim == 1 else 0
    if feats.ndim != 2 or feats.shape[1] != BANDS or feats.dtype.kind != "f" or not np.isfinite(feats).all():
        raise RecurlabError(f"{path}: feats={feats.shape} {feats.dtype}: must be finite numbers (frames, {BANDS})")
    for name, column in zip(wanted[1:], columns, strict=True):
        if count == 0 or column.shape != (count,) or column.dtype.kind not in "iu" or column.min() < 0:
            raise RecurlabError(f"{path}: {name}={column.shape} {column.dtype}: must be a whole number a recording")
    lengths, digits, takes = (column.astype(np.int64) for column in columns)
    if lengths.min() == 0 or lengths.sum() != len(feats):
        number = f"recording {lengths.argmin()} has none" if lengths.min() == 0 else f"len adds up to {lengths.sum()}"
        raise RecurlabError(f"{path}: {number} of the {len(feats)} frames; each must have some, and all be somebody's")
    if digits.max() >= len(DIGITS):
        raise RecurlabError(f"{path}: label={digits.max()} of recording {digits.argmax()}: must be 0 to 9")
    return Recordings(Ragged(feats.astype(np.float32), lengths, digits), takes)


def _read_recordings(paths: list[Path]) -> Recordings:
    """Return the bands of WAV files named digit_speaker_take.wav; they are kept in the cache."""
    parts = []
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None:
            raise RecurlabError(
                f"{path}: must be named digit_speaker_take.wav, with a digit of 0 to 9, as 7_theo_12.wav"
            )
        parts.append(match)

    def make() -> dict[str, NDArray[np.generic]]:
        bands = [log_mel(read_wav(path, RATE), RATE, BANDS) for path in track(paths, "log-mel bands")]
        return {"feats": np.concatenate(bands).ravel(), "len": np.array([len(band) for band in bands])}

    contents = hashlib.sha256("".join(path.name + sha256_of(path) for path in paths).encode()).hexdigest()
    made = cached(f"fsdd log_mel {VERSION} {RATE} {BANDS} {contents}", make)
    digits, takes = (np.array([int(part[group]) for part in parts]) for group in (1, 3))
    return Recordings(Ragged(made["feats"].reshape(-1, BANDS), made["len"].astype(np.int64), digits), takes)
