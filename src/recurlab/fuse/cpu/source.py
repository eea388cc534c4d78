"""The whole text of a kernel: the arithmetic, a cell's step and the loop over time around it."""

import torch

from recurlab.fuse.headers import assemble

LOOPS = {"diagonal": "diagonal", "dense": "dense_run"}  # the header of the loop over time
# The kernels and their callers agree on these.
SAMPLES = 8  # of an item of the diagonal kernel: they share what they load, and their sums
BLOCKS = 8  # the most vectors of units of such an item
GROUP = 32  # the most samples that a thread of the dense kernel takes through the sequence together
PART = 4  # samples of the dense kernel that share a sum; fixed as SAMPLES is, for this orders the sums
REALS = {torch.float32: "float", torch.float64: "double"}


def cpu_source(step: str, structs: str, kind: str, dtype: torch.dtype) -> str:
    """Return the C++ source of a cell's kernels for a CPU.

    Args:
        step: the generated struct `Step`.
        structs: the definitions of what the kernels are called with, see `Structs`.
        kind: of the loop: diagonal, or dense, which a block recurrence runs in too.
        dtype: float32 or float64.
    """
    parts = assemble("cpu", LOOPS[kind], {"constants": constants(dtype), "generated": f"{step}\n{structs}"})
    # Names without linkage: the loader would take equal ones of two kernels for one and the same.
    first = [parts.pop("constants"), "namespace {"]
    entries = [
        "}  // namespace",
        'extern "C" void forward(const Problem *p) { run_forward(*p); }',
        'extern "C" void backward(const Problem *p) { run_backward(*p); }',
        "",
    ]
    return "\n".join([*first, *parts.values(), *entries])


def constants(dtype: torch.dtype) -> str:
    """Return what the headers take for granted: the type that is computed in, and the constants above."""
    lines = [
        f"typedef {REALS[dtype]} real, Store;  // of numbers, and of sequences in memory",
        f"#define REAL_IS_FLOAT {int(dtype == torch.float32)}",
        "#define INLINE inline __attribute__((always_inline))",
        f"static constexpr int SAMPLES = {SAMPLES}, BLOCKS = {BLOCKS}, GROUP = {GROUP}, PART = {PART};",
        "",
    ]
    return "\n".join(lines)
