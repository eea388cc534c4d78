"""Examples of the headers that are generated for each kernel, for an editor that opens the others: those of a GRU.

`python tests/fuse/editor_headers.py` writes it anew.
"""

from pathlib import Path

import torch

import recurlab
from recurlab.cells.build import build_cell
from recurlab.fuse.abi import Structs
from recurlab.fuse.cpu.source import constants
from recurlab.fuse.cuda.faults import Fault
from recurlab.fuse.cuda.plan import Multiplication, Storage
from recurlab.fuse.cuda.source import definitions
from recurlab.fuse.headers import norm_constants
from recurlab.fuse.step.generate import generate
from recurlab.fuse.step.trace import trace

FUSE = Path(recurlab.__file__).parent / "fuse"
NOTE = "// An example for editors: this header is generated for each kernel. See tests/fuse/editor_headers.py.\n"
# Of all programs together.
CONSTANTS = {
    "STORAGE": Storage.BFLOAT16, "NOISY": 1, "THREADS": 256, "VECTOR": 2, "AHEAD": 4, "HIDDEN": 64, "WIDTH": 64,
    "TEAM": 2, "UNITS": 32, "SAMPLES": 16, "CHUNK": 8, "WARPS_M": 2, "HELD": 1,
    "PRODUCT": Multiplication.STORED, "CLUSTERED": 1, "DIAGONAL": 0, "OF_UNIT": 1, **norm_constants(""),
}  # fmt: skip


def texts() -> dict[Path, str]:
    """Return the text of each file."""
    cell = build_cell("gru", "dense", 1, {})[0]
    step, sizes = generate(trace(cell, torch.float32)), (len(cell.states), len(cell.phases), torch.float32)
    cpu = [f'#include "arithmetic.h"\n\n{step}\n', Structs("cpu", *sizes, normalized=True).text]
    cuda = ['#include "storage.h"\n', cpu[0], Structs("cuda", *sizes, {"Fault": Fault}, normalized=True).text]
    found = {"cpu": {"constants": constants(torch.float32), "generated": "".join(cpu)},
             "cuda": {"constants": definitions(CONSTANTS), "generated": "".join(cuda)}}  # fmt: skip
    return {
        FUSE / device / "templates" / f"{name}.h": f"#pragma once\n{NOTE}{text}"
        for device, headers in found.items()
        for name, text in headers.items()
    }


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
