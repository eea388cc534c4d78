"""What the tests of the emulated CUDA kernels run: a small layout, and a layer with every kind of flag."""

import torch

from layer_cases import Case, assert_near, run

TOLERANCE = 2e-5  # of float32: a part of the largest magnitude of each tensor
SMALL = {"units": 16, "samples": 8, "chunk": 8, "warps": 4}  # of a dense kernel
PLAIN_LOOP = {"VECTOR": 1, "AHEAD": 4, "THREADS": 32}  # of a diagonal kernel, for any number of units
WIDTH = 20  # units of a head: two blocks of that layout
PLAIN = {
    "bidirectional": False, "bias": True, "batch_first": False, "stateful": False, "masked_output": "zero",
    "zoneout": 0.0, "recurrent_dropout": 0.0, "dropconnect": 0.0, "dropout": 0.0, "variational": False,
}  # fmt: skip
NOISY = {"bidirectional": True, "masked_output": "hold", "zoneout": 0.3}


def case_of(cell, recurrence, **changes):
    """Return a case with every kind of flag, and changes of it or of the layer's options."""
    names = Case.__dataclass_fields__
    options = {**PLAIN, **NOISY, **{name: changes.pop(name) for name in list(changes) if name not in names}}
    if "lstm" in cell and options["zoneout"]:
        options["zoneout"] = (options["zoneout"], 0.4)
    options = {"heads": 2 if recurrence == "block" else 1, "recurrence": recurrence, **options}
    usual = {
        "units": WIDTH * options["heads"], "steps": 7, "batch": 9, "features": 3, "layers": 1, "padding": "mask",
        "resets": True, "initial": True, "training": True, "seed": 5,
    }  # fmt: skip
    return Case(cell, options, **{**usual, **changes})


def assert_agree(case):
    assert_near(run(case, "fused", torch.float32), run(case, "eager", torch.float32), TOLERANCE)
