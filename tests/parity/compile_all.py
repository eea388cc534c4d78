"""Compile, on all cores, what gpu_verify will run on a GPU: here, or on one known by its name.

Usage: python compile_all.py TINY NAME SECONDS; TINY: True or False, NAME: of `recurlab.bench.devices`, "" for this
machine's GPU, SECONDS: no more is compiled after these. What is left is compiled by who runs it, one program after the
other.
"""

import sys
import warnings
from pathlib import Path

import torch

import recurlab
from recurlab.bench import devices, families, programs
from recurlab.bench.layers import LayerCall
from recurlab.bench.plan import FULL, TINY, items
from recurlab.fuse.cuda import gpu

sys.path.append(str(Path(__file__).parents[1]))  # for modules that all tests share, where pytest has not added it
META = torch.device("meta")  # sizes without numbers


def needed(device, tiny):
    """Yield the sources of all those programs, in the order of the stages."""
    if gpu.properties(device).capability >= (9, 0):
        yield gpu.LEAST  # which the driver is asked about clusters with
    yield from families.kernel_sources(device, tiny=tiny)
    yield from of_groups(device)
    if not tiny:
        yield from of_large(device)
    yield from programs.of_items(items(TINY if tiny else FULL, device.type, ""), device)
    yield from of_one_pass(device)


def of_one_pass(device):
    """Yield the sources of what compute-sanitizer watches."""
    import one_pass

    for dtype in (torch.float32, torch.bfloat16):
        for sizes in one_pass.LAYERS:
            layer, x, masks = one_pass.prepared(META, *sizes, dtype)
            yield from programs.of_layer(LayerCall(layer, layer, x, masks), device, allow_tf32=False)


def of_groups(device):
    """Yield the sources of the fixed list of layers."""
    from device_cases import groups

    for group in groups():
        if group.backend == "fused":
            for case in group.cases:
                yield from _of_case(case, group.precision, device)


def of_large(device):
    """Yield the sources of the large layers."""
    from test_cuda import LARGE, PRECISIONS

    for case in LARGE.values():
        for precision in PRECISIONS:
            yield from _of_case(case, precision, device)


def _of_case(case, precision, device):
    from device_cases import DTYPES
    from layer_cases import CELLS

    dtype = DTYPES[precision]
    made = {**CELLS[case.cell], **case.options, "dtype": dtype, "device": META, "backend": "fused"}
    layer = recurlab.RNN(case.features, case.units, case.layers, **made).train(case.training)
    x = torch.empty(case.steps, case.batch, case.features, dtype=dtype, device=META)
    flag = torch.empty(case.steps, case.batch, dtype=torch.bool, device=META)
    flags = {"mask": case.padding != "none", "resets": case.resets}  # lengths are a mask to a kernel
    masks = {name: flag for name, given in flags.items() if given}
    return programs.of_layer(LayerCall(layer, layer, x, masks), device, allow_tf32=precision == "tf32")


def main(tiny, name, seconds):
    device = torch.device("cuda")
    warnings.simplefilter("ignore", RuntimeWarning)  # that the kernels are not measured on this device
    sources = []
    for properties in devices.variants(name) if name else [None]:
        with devices.taken_for(properties):
            sources += needed(device, tiny)
            capability = gpu.properties(device).capability
    wrong = programs.compile_all(sources, capability, seconds)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] == "True", sys.argv[2], float(sys.argv[3])))
