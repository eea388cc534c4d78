"""MNIST read pixel by pixel or row by row (LeCun et al., 1998; as sequences: Le et al., arXiv 1504.00941)."""

import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recurlab.data.data import Arrays, below
from recurlab.data.files import Files
from recurlab.data.hub import load_hub
from recurlab.data.progress import track
from recurlab.errors import RecurlabError, check_choice, check_integer, one_line, path_of
from recurlab.foreign import check_unfolded, content_of, most_of

IMAGES, LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"
PIXELS = 28 * 28
PERMUTED_SEED = 92916  # used by many published results
REPLACEMENT_SEED = 1  # our choice: the seeds behind the published numbers are not known


@dataclass(frozen=True)
class MNIST(Files):
    """Digits as sequences, pixels scaled to [-1, 1].

    The files are the four original ones in `dir`, or else in ``$RECURLAB_DATA/mnist``; where
    neither is named, the data come from the hub.

    Attributes:
        view: "pixel" is (784, 1), "row" is (28, 28).
        order: of the pixels. "scan": by rows. "permuted": by one fixed random permutation, that of
            ``numpy.random.RandomState(92916)``. "bit_reversed": by numbers of 10 bits, read
            backwards; those below 784 are kept. "with_replacement": 784 pixels drawn with
            replacement, so that about 63 % of the pixels are seen, many of them repeatedly. The
            released code of recurrent batch normalisation (arXiv 1603.09025) does so, and the
            results of Zoneout (arXiv 1606.01305) called "permuted" are of it. It is not the problem
            of a true permutation, and the numbers can't be compared. The seed is our own choice.
        valid_size: training images put aside for validation, drawn with `split_seed`.
        hub: name of the data set on the `datasets` hub, or a local folder that `datasets` reads.
    """

    batch_size: int = 128
    view: str = "pixel"
    order: str = "scan"
    valid_size: int = 3_000
    split_seed: int = 0
    hub: str = "ylecun/mnist"

    problem: ClassVar = "classification"
    FOLDER: ClassVar = "mnist"
    SHA256: ClassVar = {
        f"train-{IMAGES}": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        f"train-{LABELS}": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        f"t10k-{IMAGES}": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        f"t10k-{LABELS}": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.view", self.view, ("pixel", "row"))
        check_choice("data.order", self.order, ("scan", "permuted", "bit_reversed", "with_replacement"))
        check_integer("data.valid_size", self.valid_size)
        check_integer("data.split_seed", self.split_seed, low=0, high=2**32 - 1)
        if self.view == "row" and self.order != "scan":
            raise RecurlabError(f"data.order={self.order!r}: rows are read in the order 'scan'; pixels can be permuted")

    @property
    def reads(self) -> tuple[str, ...]:
        """The four original files."""
        return tuple(self.SHA256)

    @property
    def places(self) -> tuple[str, ...]:
        """`hub`, where that is a local folder."""
        return ("hub",) if self._local is not None else ()

    def sources(self) -> Mapping[str, Path]:
        """Return the four files, or those of a local folder that stands for the hub."""
        return super().sources() if self._local is None else below(self._local)

    @property
    def _local(self) -> Path | None:
        """`hub`, where that is a local folder and is read."""
        folder = path_of("data.hub", self.hub)
        return folder if self.folder() is None and self.hub and folder.is_dir() else None

    @property
    def input_size(self) -> int:
        """1 pixel or 28."""
        return 1 if self.view == "pixel" else 28

    @property
    def output_size(self) -> int:
        """10 digits."""
        return 10

    @property
    def chance(self) -> dict[str, float]:
        """One in ten."""
        return {"accuracy": 0.1}

    def split(self, name: str, seed: int, epoch: int) -> Arrays:
        """Return (N, 784, 1) or (N, 28, 28) and the digits (N,)."""
        images, labels = self._read("test" if name == "test" else "train")
        if name != "test":
            if self.valid_size >= len(labels):
                raise RecurlabError(f"data.valid_size={self.valid_size}: must be less than the {len(labels)} images")
            order = np.random.RandomState(self.split_seed).permutation(len(labels))
            chosen = order[: self.valid_size] if name == "valid" else order[self.valid_size :]
            images, labels = images[chosen], labels[chosen]
        pixels = images.reshape(len(images), PIXELS)
        if self.order != "scan":
            pixels = pixels[:, _order(self.order)]
        scaled = pixels.astype(np.float32) / 127.5 - 1
        return Arrays(scaled.reshape(len(images), -1, self.input_size), labels.astype(np.int64))

    def _read(self, part: str) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
        """Return the images (N, 28, 28) and labels (N,) of "train" or "test"."""
        folder = self.folder()
        if folder is None:
            where, (images, labels) = f"data.hub={self.hub!r}", _read_hub(self.hub, part)
        else:
            prefix = "train" if part == "train" else "t10k"
            where = f"data.dir={str(folder)!r}"
            images, labels = (
                _read_idx(self.file(f"{prefix}-{IMAGES}"), 3),
                _read_idx(self.file(f"{prefix}-{LABELS}"), 1),
            )
        if images.shape[1:] != (28, 28) or not len(images) == len(labels) > 0:
            raise RecurlabError(f"{where}: {images.shape} {part} images and {len(labels)} labels do not match")
        if labels.min() < 0 or labels.max() > 9:
            wrong = labels[(labels < 0) | (labels > 9)][0]
            raise RecurlabError(f"{where}: a {part} image has the label {wrong}; must be a digit")
        return images, labels


def _order(name: str) -> NDArray[np.int64]:
    """Return which pixel is read at each of the 784 steps."""
    if name == "permuted":
        return np.random.RandomState(PERMUTED_SEED).permutation(PIXELS)
    if name == "with_replacement":
        return np.random.RandomState(REPLACEMENT_SEED).randint(0, PIXELS, size=PIXELS)
    backwards = np.array([int(f"{number:010b}"[::-1], base=2) for number in range(1024)])
    return backwards[backwards < PIXELS]


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array in a gzip'd idx file of bytes: a magic number, the sizes as big-endian int32, the values."""
    try:
        packed = content_of(path)
        most = most_of(len(packed))
        with gzip.open(io.BytesIO(packed)) as file:
            raw = file.read(most + 1)
        check_unfolded(len(raw), len(packed))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecurlabError(f"{path}: damaged ({one_line(error)}); must be a gzip'd idx file") from error
    header = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(raw[4:header], ">i4")) if len(raw) >= header else ()
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) != header + int(np.prod(shape)):
        raise RecurlabError(f"{path}: not an idx file of bytes in {dimensions} dimension(s)")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _read_hub(name: str, part: str) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    rows = load_hub("data.hub", name, local="for local files set data.dir or RECURLAB_DATA", split=part)
    missing = {"image", "label"} - set(rows.column_names)
    if missing:
        raise RecurlabError(f"data.hub={name!r}: no column {sorted(missing)[0]!r}, only {', '.join(rows.column_names)}")
    try:
        images = [np.asarray(image, np.uint8) for image in track(rows["image"], f"MNIST, {part}")]
        labels = np.asarray(rows["label"])
        if labels.dtype.kind not in "iu":
            raise TypeError(f"labels of type {labels.dtype}")
        return np.stack(images), labels
    except (TypeError, ValueError, OSError) as error:
        what = "must be images of one size and whole numbers"
        raise RecurlabError(f"data.hub={name!r}: {what} ({one_line(error)})") from error
