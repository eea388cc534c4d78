"""The whole text of a kernel: the arithmetic, a cell's step and the loop over time around it; and of products."""

from collections.abc import Mapping, Sequence

import torch

from recurlab.fuse.headers import assemble, norm_constants

LOOPS = {"diagonal": "diagonal", "dense": "dense_run"}  # the header of the loop over time
NORMALIZED = "normalized_run"  # that of all loops with layer normalisation
# The kernels and their callers agree on these.
SAMPLES = 8  # of an item of the diagonal kernel: they share what they load, and their sums
BLOCKS = 8  # the most vectors of units of such an item
GROUP = 64  # the most samples that a thread of the dense kernel takes through the sequence together
PART = 4  # samples of the dense kernel that share a sum; fixed as SAMPLES is, for this orders the sums
PACKED_CALLS = ("plan", "read", "find_places", "clear", "pack", "unpack")  # those of packed.h
REALS = {torch.float32: "float", torch.float64: "double"}


def cpu_source(step: str, structs: str, kind: str, dtype: torch.dtype, norm: str) -> str:
    """Return the C++ source of a cell's kernels for a CPU.

    Args:
        step: the generated struct `Step`.
        structs: the definitions of what the kernels are called with, see `Structs`.
        kind: of the loop: diagonal, or dense, which a block recurrence runs in too.
        dtype: float32 or float64.
        norm: the kind of layer normalisation, see `LayerNorm`; empty without it.
    """
    loop = NORMALIZED if norm else LOOPS[kind]
    generated = {"constants": constants(dtype, kind, norm), "generated": f"{step}\n{structs}"}
    return _text(loop, generated, "Problem", ("forward", "backward"))


def step_source(step: str, structs: str, dtype: torch.dtype) -> str:
    """Return the C++ source of a single step of layers of a cell; the arguments are those of `cpu_source`."""
    return _text("step", {"constants": constants(dtype), "generated": f"{step}\n{structs}"}, "StepCall", ("step",))


def product_source(dtype: torch.dtype) -> str:
    """Return the C++ source of the product of two matrices for a CPU."""
    return _text("product", {"constants": constants(dtype)}, "Product", ("product",))


def packed_source() -> str:
    """Return the C++ source of what a CPU does for a packed batch, see packed.h; it computes with no numbers."""
    return _text("packed", {"constants": constants(torch.float32)}, "Packed", PACKED_CALLS)


def _text(header: str, generated: Mapping[str, str], struct: str, entries: Sequence[str]) -> str:
    """Return a header and all that it includes, with a function for each of its `run_...` that takes the struct."""
    parts = assemble("cpu", header, generated)
    # Names without linkage: the loader would take equal ones of two kernels for one and the same.
    first = [parts.pop("constants"), "namespace {"]
    last = [f'extern "C" void {name}(const {struct} *p) {{ run_{name}(*p); }}' for name in entries]
    return "\n".join([*first, *parts.values(), "}  // namespace", *last, ""])


def constants(dtype: torch.dtype, kind: str = "dense", norm: str = "") -> str:
    """Return what the headers take for granted: the type that is computed in, and the constants above."""
    flags = [f"{name} = {str(value).lower()}" for name, value in norm_constants(norm).items()]
    lines = [
        f"typedef {REALS[dtype]} real, Store;  // of numbers, and of sequences in memory",
        f"#define REAL_IS_FLOAT {int(dtype == torch.float32)}",
        "#define INLINE inline __attribute__((always_inline))",
        f"static constexpr int SAMPLES = {SAMPLES}, BLOCKS = {BLOCKS}, GROUP = {GROUP}, PART = {PART};",
        f"static constexpr bool DIAGONAL = {str(kind == 'diagonal').lower()};  // the recurrence",
        "// What layer normalisation takes together, if there is any.",
        f"static constexpr bool {', '.join(flags)};",
        "",
    ]
    return "\n".join(lines)
