"""The whole text of a CUDA kernel: what it is compiled for, the intrinsics, a cell's step and the loop around it."""

from collections.abc import Mapping

from recurlab.fuse.abi import enumeration
from recurlab.fuse.cuda.plan import Multiplication, Storage
from recurlab.fuse.headers import assemble

# Of each program, which is a header, the entry points.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "diagonal_forward": ("forward",),
    "diagonal_backward": ("backward",),
    "diagonal_chunks": ("transfer", "combine", "backward"),
    "dense_forward": ("forward",),
    "dense_backward": ("backward",),
    "normalized_forward": ("forward",),
    "normalized_backward": ("backward",),
}


def cuda_source(step: str, structs: str, program: str, constants: Mapping[str, int]) -> str:
    """Return the CUDA C++ source of one program for a cell.

    Args:
        step: the generated struct `Step`.
        structs: the definitions of what the kernels are called with, see `Structs`.
        program: a name of `PROGRAMS`.
        constants: what the program is compiled for; STORAGE, NOISY and THREADS, and those that its
            headers name.
    """
    generated = {"constants": definitions(constants), "generated": f"{step}\n{structs}"}
    parts = assemble("cuda", program, generated)
    first = [parts.pop("constants"), parts.pop("device"), "namespace {"]
    entries = [f"ENTRY({name}) {{ run_{name}(p); }}" for name in PROGRAMS[program]]
    return "\n".join([*first, *parts.values(), "}  // namespace", *entries, ""])


def definitions(constants: Mapping[str, int]) -> str:
    """Return the constants that a program is compiled for, and the codes in them."""
    lines = [f"#define {name} {value:d}" for name, value in constants.items()]
    return "\n".join(
        [*lines, "// The values of STORAGE and of PRODUCT.", *map(enumeration, (Storage, Multiplication)), ""]
    )
