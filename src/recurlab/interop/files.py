"""Files of arrays: .npz, .safetensors, .h5 and .keras, .pt, and TensorFlow's checkpoints. None of them runs code."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from recurlab.errors import RecurlabError, did_you_mean, one_line, path_of
from recurlab.files import write_bytes
from recurlab.foreign import check_archive, check_unfolded, content_of, load_tensors, open_file
from recurlab.interop.layout import Arrays, array_of

KERAS_NAMES = ("kernel", "recurrent_kernel", "bias")  # of a cell's variables, which Keras 3 numbers


def read_file(path: str | Path) -> Arrays:
    """Return the arrays of a file by their names; those of Keras and TensorFlow with the layers' names in front.

    Args:
        path: .npz; .safetensors; .h5 or .hdf5 (Keras' weights of any version) and .keras; .pt, .pth
            or .ckpt (a state dict); or a checkpoint of TensorFlow, by what its files' names begin
            with.

    Raises:
        RecurlabError: for a file that is not there or can't be read, or whose package is not
            installed.
    """
    file = path_of("file", str(path))
    checkpoint = file.with_name(f"{file.name}.index").is_file()
    if not checkpoint and not file.is_file():
        near = did_you_mean(file.name, [entry.name for entry in file.parent.glob("*")])
        raise RecurlabError(f"file={str(file)!r}: there is no such file{near}")
    reader = _read_tensorflow if checkpoint else READERS.get(file.suffix.lower())
    if reader is None:
        raise RecurlabError(f"file={str(file)!r}: must be one of {', '.join(READERS)}, or a checkpoint of TensorFlow")
    try:
        return {name.removesuffix(":0"): array for name, array in reader(file).items()}
    except RecurlabError:
        raise
    except Exception as error:  # each package has its own
        raise RecurlabError(f"file={str(file)!r}: can't be read: {one_line(error) or type(error).__name__}") from error


def write_file(path: str | Path, arrays: Arrays) -> None:
    """Write arrays into a file, in one piece.

    Args:
        path: .npz, .safetensors, .h5, .hdf5, .pt or .pth.
        arrays: what is written.

    Raises:
        RecurlabError: for another kind of file, or a package that is not installed.
    """
    file = check_weights_file(path)
    content = WRITERS[file.suffix.lower()](arrays)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)
    except OSError as error:
        raise RecurlabError(f"file={str(file)!r}: can't be written: {error.strerror}") from error


def check_weights_file(path: str | Path) -> Path:
    """Return the path of a file that `write_file` can write."""
    file = path_of("file", str(path))
    if file.suffix.lower() not in WRITERS:
        raise RecurlabError(f"file={str(file)!r}: must be one of {', '.join(WRITERS)}")
    return file


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise RecurlabError(f"this file needs the package {package}: pip install {package}") from error


def _read_npz(path: Path) -> Arrays:
    with open_file(path) as content, check_archive(content), np.load(content, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _write_npz(arrays: Arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _read_safetensors(path: Path) -> Arrays:
    tensors = _package("safetensors.torch").load_file(path)  # NumPy would have no bfloat16
    return {name: array_of(tensor) for name, tensor in tensors.items()}


def _write_safetensors(arrays: Arrays) -> bytes:
    content: bytes = _package("safetensors.numpy").save(arrays)
    return content


def _read_torch(path: Path) -> Arrays:
    import torch

    state = load_tensors(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise RecurlabError(f"file={str(path)!r}: holds no state dict")
    check_unfolded(sum(value.nbytes for value in state.values()), path.stat().st_size)  # strides of 0 repeat values
    return {str(name): array_of(value) for name, value in state.items()}


def _write_torch(arrays: Arrays) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, content)
    return content.getvalue()


def _read_hdf5(path: Path) -> Arrays:
    return _hdf5(content_of(path))


def _hdf5(content: bytes) -> Arrays:
    package = _package("h5py")
    with package.File(io.BytesIO(content), "r") as file:
        found: list[tuple[str, Any]] = []
        # What a link names is not visited: it may be in another file.
        file.visititems(lambda name, entry: found.append((name, entry)) if isinstance(entry, package.Dataset) else None)
        wanted = [(name, entry) for name, entry in found if "seed_generator" not in name and name[:9] != "optimizer"]
        check_unfolded(sum(entry.nbytes for _, entry in wanted), len(content))
        return dict(_values(wanted))


def _values(datasets: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, entry in datasets:
        if entry.external or entry.is_virtual:  # of any file that the user may read
            raise ValueError(f"the values of {name!r} are in another file")
        numbered = re.fullmatch(r"(.*cell/)vars/([0-2])", name)
        yield (f"{numbered[1]}{KERAS_NAMES[int(numbered[2])]}" if numbered else name), entry[()]


def _read_keras(path: Path) -> Arrays:
    with open_file(path) as content, check_archive(content) as file:
        return _hdf5(file.read("model.weights.h5"))


def _write_hdf5(arrays: Arrays) -> bytes:
    content = io.BytesIO()
    with _package("h5py").File(content, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return content.getvalue()


def _read_tensorflow(path: Path) -> Arrays:
    reader = _package("tensorflow").train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npz": _read_npz, ".safetensors": _read_safetensors, ".h5": _read_hdf5, ".hdf5": _read_hdf5, ".keras": _read_keras,
    ".pt": _read_torch, ".pth": _read_torch, ".ckpt": _read_torch,
}  # fmt: skip
WRITERS: dict[str, Callable[[Arrays], bytes]] = {
    ".npz": _write_npz, ".safetensors": _write_safetensors, ".h5": _write_hdf5, ".hdf5": _write_hdf5,
    ".pt": _write_torch, ".pth": _write_torch,
}  # fmt: skip
