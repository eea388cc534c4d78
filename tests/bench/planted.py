"""The process of a family of small layers on an emulated GPU, whose kernels have a fault in two of the families.

Usage: python planted.py DEVICE TINY SECONDS FAMILY, as recurlab.bench.smoke.
"""

import sys

import pytest
import torch

from emulated_gpu import EmulatedGPU
from recurlab.bench import families, smoke
from recurlab.bench.families import Layer

FAMILIES = {
    "hanging": (Layer("indrnn", "diagonal", 3, 2, 5),),
    "wrong": tuple(Layer("indrnn", "diagonal", 3, batch, 4) for batch in (5, 1, 3)),
    "right": (Layer("indrnn", "diagonal", 3, 2, 5),),
}
FAULTS = {
    "hanging": "for (volatile int wait = 1; wait;) {}",
    "wrong": "if (p.batch > 1) p.direction[0].end[0][0] = 7;",  # what the thread of this element writes last
    "right": "",
}


def main(device, tiny, _, family):
    fault = FAULTS[family]
    with pytest.MonkeyPatch.context() as patch:
        EmulatedGPU(edit=lambda text: text.replace("run_forward(p);", f"run_forward(p); {fault}")).install(patch)
        patch.setattr(families, "FAMILIES", FAMILIES)
        return smoke.run_family(family, torch.device(device), tiny=tiny == "True")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
