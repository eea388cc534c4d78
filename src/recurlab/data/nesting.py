"""How deep the lists of a JSON file are nested: lists nested too deep overflow the stack of its reader."""

import re
from pathlib import Path

import numpy as np

from recurlab.foreign import open_file

DEEPEST = 64  # Arrow has no types for more levels
PIECE = 2**20  # bytes looked at a time
ESCAPED = re.compile(rb"\\.", re.DOTALL)
STEP = np.zeros(256, np.int8)  # for each byte: one level down, one up, or neither
STEP[list(b"[{")], STEP[list(b"]}")] = 1, -1


def deepest(path: Path) -> int:
    """Return the depth to which a JSON or JSON Lines file is nested; brackets in strings do not count."""
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
                lowest = np.minimum.accumulate(np.minimum(levels, 0))  # one bracket too many closed: count from here
                most = max(most, int((levels - lowest).max()))
                level, quoted = int(levels[-1] - lowest[-1]), inside[-1]
    return most
