"""A layer's weights from the file of one package to that of another."""

import re
from pathlib import Path
from typing import Any

from recurlab.errors import RecurlabError, check_choice, unknown
from recurlab.interop.files import check_weights_file, read_file, write_file
from recurlab.interop.formats import FORMATS
from recurlab.interop.layout import Arrays

# What only recurrent layers have, of each package.
RECURRENT = re.compile(r"(.*?)[/.]?(recurrent_kernel|recurrent_scale|(gates/)?kernel_u|gates/kernel|weight_hh_l0)")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    format: str,
    to: str = "torch",
    layer: str = "",
    forget_bias: float = 1.0,
    **hints: Any,
) -> str:
    """Convert a file.

    Args:
        source, target: as `recurlab.interop.read_file` and `write_file`.
        format: of the source, as `recurlab.interop.from_arrays`.
        to: format of the target, as `recurlab.interop.to_arrays`.
        layer: what the names of the arrays begin with, in a file of several layers.
        forget_bias: of TensorFlow's LSTM cells, on either side.
        hints: cell and reset, as `recurlab.interop.from_arrays`.

    Returns:
        What was converted, in a line.

    Raises:
        RecurlabError: as those functions, and for a layer that is not in the file.
    """
    check_choice("from", format, FORMATS)
    check_choice("to", to, FORMATS)
    check_weights_file(target)
    arrays = read_file(source)
    from recurlab.interop.layers import from_arrays, to_arrays  # with torch, which takes seconds

    try:
        made = from_arrays(_of_layer(arrays, layer), format, forget_bias=forget_bias, **hints)
    except RecurlabError as error:
        others = {match[1] for match in map(RECURRENT.fullmatch, arrays) if match and match[1] and not layer}
        hint = f"; --layer takes one of {', '.join(sorted(others))}" if others else ""
        raise RecurlabError(f"{error}{hint}") from error
    written = to_arrays(made, to, forget_bias=forget_bias)
    write_file(target, written)
    return f"{made} -> {target}: {', '.join(f'{name} {array.shape}' for name, array in written.items())}"


def _of_layer(arrays: Arrays, layer: str) -> Arrays:
    if not layer:
        return arrays
    head = re.compile(rf"{re.escape(layer)}[/.]")
    found = {name[len(layer) + 1 :]: array for name, array in arrays.items() if head.match(name)}
    if not found:
        raise unknown("layer", layer, sorted({name.rpartition("/")[0] or name.rpartition(".")[0] for name in arrays}))
    return found
