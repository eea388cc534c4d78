"""How deep the lists of a JSON file stand in each other: deep enough, they overflow the stack of what reads them."""

import re
from pathlib import Path

import numpy as np

from recurlab.foreign import open_file

DEEPEST = 64  # more levels Arrow has no types for
PIECE = 2**20  # bytes that are looked at together
ESCAPED = re.compile(rb"\\.", re.DOTALL)
STEP = np.zeros(256, np.int8)  # up or down, for each byte
STEP[list(b"[{")], STEP[list(b"]}")] = 1, -1


def deepest(path: Path) -> int:
    """Return the most levels of lists and objects in a file of JSON or of lines of it; brackets in strings are none."""
    level = most = 0
    quoted = np.False_
    with open_file(path) as file:
        while lines := file.readlines(PIECE):
            text = b"".join(lines)
            codes = np.frombuffer(ESCAPED.sub(b"", text) if b"\\" in text else text, np.uint8)
            for start in range(0, len(codes), PIECE):
                piece = codes[start : start + PIECE]
                inside = np.logical_xor.accumulate(piece == ord('"')) ^ quoted
                levels = np.cumsum(STEP[piece] * ~inside, dtype=np.int64) + level
                lowest = np.minimum.accumulate(np.minimum(levels, 0))  # what closes too much begins anew
                most = max(most, int((levels - lowest).max()))
                level, quoted = int(levels[-1] - lowest[-1]), inside[-1]
    return most
