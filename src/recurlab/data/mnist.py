"""MNIST read pixel by pixel or row by row (LeCun et al., 1998; as sequences: Le et al., arXiv 1504.00941)."""

import gzip
import hashlib
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recurlab.data.benchmark import Arrays, Benchmark
from recurlab.errors import RecurlabError, check_choice, check_integer, one_line

log = logging.getLogger(__name__)

IMAGES, LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"
MD5 = {
    f"train-{IMAGES}": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    f"train-{LABELS}": "d53e105ee54ea40749a09fcbcd1e9432",
    f"t10k-{IMAGES}": "9fb629c4189551a2d022fa330f9573f3",
    f"t10k-{LABELS}": "ec29112dd5afa0611ce80d1b7f02629c",
}


@dataclass(frozen=True)
class MNIST(Benchmark):
    """Digits as sequences, pixels scaled to [-1, 1].

    Attributes:
        view: "pixel" is (784, 1), "row" is (28, 28).
        order: of the pixels: "scan" by rows, or "permuted" by one fixed random permutation, that of
            ``numpy.random.RandomState(92916)``.
        valid_size: training images put aside for validation, drawn with `split_seed`.
        dir: folder of the four original files; without one, ``$RECURLAB_DATA/mnist`` and then the hub.
        hub: name of the data set on the `datasets` hub, or a local folder that `datasets` reads.
    """

    batch_size: int = 128
    view: str = "pixel"
    order: str = "scan"
    valid_size: int = 3_000
    split_seed: int = 0
    dir: str | None = None
    hub: str = "ylecun/mnist"

    problem: ClassVar = "classification"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.view", self.view, ("pixel", "row"))
        check_choice("data.order", self.order, ("scan", "permuted"))
        check_integer("data.valid_size", self.valid_size)
        check_integer("data.split_seed", self.split_seed, low=0, high=2**32 - 1)
        if self.view == "row" and self.order != "scan":
            raise RecurlabError(f"data.order={self.order!r}: rows are read in the order 'scan'; pixels can be permuted")

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
        pixels = images.reshape(len(images), -1)
        if self.order == "permuted":
            pixels = pixels[:, np.random.RandomState(92916).permutation(pixels.shape[1])]
        scaled = pixels.astype(np.float32) / 127.5 - 1
        return Arrays(scaled.reshape(len(images), -1, self.input_size), labels.astype(np.int64))

    def _read(self, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        folder = self._folder()
        if folder is None:
            return _read_hub(self.hub, part)
        prefix = "train" if part == "train" else "t10k"
        images, labels = _read_idx(folder / f"{prefix}-{IMAGES}", 3), _read_idx(folder / f"{prefix}-{LABELS}", 1)
        if not len(images) == len(labels) > 0 or images.shape[1:] != (28, 28) or labels.max() > 9:
            raise RecurlabError(
                f"data.dir={str(folder)!r}: {images.shape} images and {len(labels)} labels do not match"
            )
        return images, labels

    def _folder(self) -> Path | None:
        if self.dir is not None:
            return Path(self.dir).expanduser()
        shared = os.environ.get("RECURLAB_DATA")
        if shared and (Path(shared) / "mnist").is_dir():
            return Path(shared) / "mnist"
        return None


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array in a gzip'd idx file of bytes: a magic number, the sizes as big-endian int32, the values."""
    if not path.is_file():
        raise RecurlabError(f"data.dir={str(path.parent)!r}: {path.name} is missing; {_wanted(path)}")
    packed = path.read_bytes()
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    try:
        raw = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise RecurlabError(f"{path}: damaged ({one_line(error)}), md5 {found}; {_wanted(path)}") from error
    header = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(raw[4:header], ">i4")) if len(raw) >= header else ()
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) != header + int(np.prod(shape)):
        raise RecurlabError(f"{path}: not an idx file of {dimensions} dimension(s), md5 {found}; {_wanted(path)}")
    if found != MD5[path.name]:
        log.warning("%s is not the original MNIST: md5 %s; %s", path, found, _wanted(path))
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _wanted(path: Path) -> str:
    return f"the original {path.name} has md5 {MD5[path.name]}"


def _read_hub(name: str, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    import datasets

    try:
        rows: Any = datasets.load_dataset(name, split=part)
    except Exception as error:  # the hub's client raises many kinds, all meaning that the data can't be had
        raise RecurlabError(
            f"data.hub={name!r}: can't be loaded ({one_line(error)}); for local files set data.dir or RECURLAB_DATA"
        ) from error
    missing = {"image", "label"} - set(rows.column_names)
    if missing:
        raise RecurlabError(f"data.hub={name!r}: no column {sorted(missing)[0]!r}, only {', '.join(rows.column_names)}")
    return np.stack([np.asarray(image, np.uint8) for image in rows["image"]]), np.asarray(rows["label"], np.uint8)
