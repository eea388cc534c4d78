"""Trained models for where this package is not installed: graphs of torch.export and of ONNX."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from recurlab.errors import RecurlabError, check_choice, did_you_mean, path_of

# What a file may be, by its suffix, and the packages that write it.
FORMATS: dict[str, tuple[str, ...]] = {".onnx": ("onnx", "onnxscript"), ".pt2": ()}
# What a graph may take beside the sequence.
LAYER_INPUTS = ("hx", "lengths", "mask", "resets")
MODEL_INPUTS = ("hx", "lengths", "resets")


def check_graph_file(path: str | Path) -> Path:
    """Return the path of a file to be written; raise where it has another suffix, or its packages are missing."""
    file = path_of("file", str(path))
    suffix = file.suffix.lower()
    if suffix not in FORMATS:
        hint = did_you_mean(suffix, FORMATS)
        raise RecurlabError(f"file={str(path)!r}: must end in {' or '.join(FORMATS)}{hint}")
    if file.is_dir():
        raise RecurlabError(f"file={str(path)!r}: is a folder")
    for package in FORMATS[suffix]:
        if find_spec(package) is None:
            raise RecurlabError(f"file={str(path)!r}: needs the package {package}: pip install 'recurlab[export]'")
    return file


def check_inputs(inputs: Iterable[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of `inputs`, each once, in the order of those `allowed`; raise for any other."""
    names = [inputs] if isinstance(inputs, str) else list(inputs)
    for name in names:
        check_choice("inputs", name, allowed)
    if "lengths" in names and "mask" in names:
        raise RecurlabError("inputs='mask': not together with 'lengths', which are the mask of right padding")
    return tuple(name for name in allowed if name in names)
