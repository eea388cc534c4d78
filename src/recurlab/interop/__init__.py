"""Weights in and out: layers of torch, Keras, TensorFlow 1, cuDNN and haste as plain dictionaries of arrays."""

from recurlab.interop.convert import convert
from recurlab.interop.files import read_file, write_file
from recurlab.interop.formats import FORMATS
from recurlab.interop.layers import from_arrays, to_arrays

__all__ = ["FORMATS", "convert", "from_arrays", "read_file", "to_arrays", "write_file"]
