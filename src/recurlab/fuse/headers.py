"""The C++ headers that kernels are made of, put together as one text.

A header includes those that it needs, so that an editor can open it alone. No compiler sees an
`#include`: `assemble` follows these lines. ``constants.h`` and ``generated.h`` are generated for
each kernel; the files of these names are examples, which only editors read.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

INCLUDE = re.compile(r'#include "(?:.*/)?(\w+)\.h"\n')
# In a header that devices share: opened alone, it takes what it needs from the headers for a CPU.
ALONE = "#ifndef INLINE\n#endif\n"
ONCE = "#pragma once\n"


def assemble(device: str, name: str, generated: Mapping[str, str]) -> dict[str, str]:
    """Return the text of a header and of all that it includes, each once, by name and in the order of C++.

    Args:
        device: "cpu" or "cuda".
        name: of the header, without its ending.
        generated: the texts that take the place of headers, by their names.
    """
    found: dict[str, str] = {}

    def add(name: str) -> None:
        if name in found:
            return
        if name in generated:
            found[name] = generated[name]
            return
        for included in INCLUDE.findall(_read(device, name)):
            add(included)
        found[name] = header(device, name)

    add(name)
    return found


def header(device: str, name: str) -> str:
    """Return the text of one header of a device, or of one that all share, without what is for editors alone."""
    return INCLUDE.sub("", _read(device, name)).removeprefix(ONCE).removeprefix(ALONE).lstrip("\n")


def norm_constants(norm: str) -> dict[str, bool]:
    """Return what headers have to know of a kind of layer normalisation, see `LayerNorm`; empty for none."""
    return {"CENTERED": norm != "rms", "BY_GATE": norm == "gate", "INPUT_ALONE": norm == "input"}


@cache
def _read(device: str, name: str) -> str:
    root = files("recurlab.fuse")
    own = root.joinpath(device, "templates", f"{name}.h")
    return (own if own.is_file() else root.joinpath("templates", f"{name}.h")).read_text(encoding="utf-8")
