"""Run layers whose kernels watch their own memory and arithmetic, as a process that was started with ASan's library.

Usage: python sanitized.py LOOP CELL ...; the names are those of `LOOPS` and `LAYERS`. The first fault ends the process
with a report of it.
"""

import os
import sys
from itertools import product

os.environ.pop("LD_PRELOAD", None)  # the compiler goes without

import torch

import recurlab
from package_cells import FORMS
from recurlab.fuse.cpu import compiler
from users_cells import CELLS as USERS

LAYERS = {name: {"cell": cell} for name, cell in {**FORMS, **USERS}.items()}
LOOPS = {"diagonal": ("diagonal",), "dense": ("dense", "block")}  # the recurrences that each loop over time serves
WATCHED = "-fsanitize=address,undefined"
# Units, steps and samples: one of each, about the sizes of vectors and of items of work, and several of these.
SHAPES = ((1, 1, 1), (2, 1, 9), (16, 5, 1), (17, 6, 8), (33, 3, 17), (130, 2, 2))
BOTH = {"zoneout": 0.3, "recurrent_dropout": 0.2, "dropconnect": 0.2, "bidirectional": True}
OPTIONS = ({}, {"bias": False}, BOTH, {**BOTH, "masked_output": "hold"})


def run(layer, steps: int, batch: int, dtype: torch.dtype, *, noisy: bool) -> None:
    """Go forward and back: with gradients of the output and of the last state, of one of them, and of none."""
    x = torch.randn(steps, batch, 3, dtype=dtype, requires_grad=True)
    flags = {"mask": torch.rand(steps, batch) < 0.6, "resets": torch.rand(steps, batch) < 0.3} if noisy else {}
    for training, used in ((True, "output"), (True, "final"), (True, "both"), (False, "both")):
        output, final = layer.train(training)(x, **flags)
        finals = final if isinstance(final, tuple) else (final,)
        parts = {"output": [output], "final": finals[-1:], "both": [output, *finals]}[used]
        sum(part.square().sum() for part in parts).backward()
    with torch.no_grad():
        layer(x.detach(), **flags)


def watch() -> None:
    """Let kernels be compiled so that a fault of theirs ends the process."""
    compiler.FLAGS = (*compiler.FLAGS, WATCHED, "-fno-sanitize-recover=all", "-g1", "-O1")
    compiler.LINK = (*compiler.LINK, WATCHED)
    assert compiler.unavailable() is None, compiler.unavailable()


def main(loop: str, *names: str) -> None:
    watch()
    for name, recurrence in product(names, LOOPS[loop]):
        for dtype in (torch.float32, torch.float64) if name in FORMS else (torch.float32,):
            for (units, steps, batch), options in product(SHAPES, OPTIONS):
                heads = {"heads": next(n for n in (3, 2, 1) if units % n == 0)} if recurrence == "block" else {}
                torch.manual_seed(7)
                made = {**LAYERS[name], **heads, **options, "recurrence": recurrence, "dtype": dtype}
                layer = recurlab.RNN(3, units, backend="fused", **made)
                run(layer, steps, batch, dtype, noisy="zoneout" in options)
        print(name, recurrence, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
