"""Weights in and out: layers of torch, Keras, TensorFlow 1, cuDNN and haste as plain dictionaries of arrays."""

from typing import TYPE_CHECKING

from recurlab.lazy import importer

if TYPE_CHECKING:
    from recurlab.interop.conversion import convert
    from recurlab.interop.files import read_file, write_file
    from recurlab.interop.formats import FORMATS
    from recurlab.interop.layers import from_arrays, to_arrays

_PUBLIC = {
    "FORMATS": "recurlab.interop.formats",
    "convert": "recurlab.interop.conversion",
    "from_arrays": "recurlab.interop.layers",
    "read_file": "recurlab.interop.files",
    "to_arrays": "recurlab.interop.layers",
    "write_file": "recurlab.interop.files",
}

__all__ = ["FORMATS", "convert", "from_arrays", "read_file", "to_arrays", "write_file"]

__getattr__ = importer(__name__, _PUBLIC)
