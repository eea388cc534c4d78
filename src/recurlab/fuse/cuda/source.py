"""The whole text of a CUDA kernel: what it is compiled for, the intrinsics, a cell's step and the loop around it."""

from collections.abc import Mapping

from recurlab.fuse.headers import template

# Before and after the generated step; those of the folder `cuda` are not for CPUs.
BEFORE = ("cuda/storage", "cuda/arithmetic", "philox")
AFTER = ("cuda/problem", "stages")
# Of each program: the templates of its loop, in the order in which they build on each other, and its entry points.
PROGRAMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "diagonal_forward": (("diagonal", "diagonal_forward"), ("forward",)),
    "diagonal_backward": (("diagonal", "diagonal_backward"), ("backward",)),
    "diagonal_chunks": (("diagonal", "diagonal_backward", "diagonal_chunks"), ("transfer", "combine", "backward")),
    "dense_forward": (("dense", "dense_product", "dense_exchange", "dense_forward"), ("forward",)),
    "dense_backward": (("dense", "dense_product", "dense_exchange", "dense_backward"), ("backward",)),
}


def cuda_source(step: str, structs: str, program: str, constants: Mapping[str, int]) -> str:
    """Return the CUDA C++ source of one program for a cell.

    Args:
        step: the generated struct `Step`.
        structs: what the kernels are called with, see `Structs`.
        program: a name of `PROGRAMS`.
        constants: what the program is compiled for; STORAGE, NOISY and THREADS, and those that its templates name.
    """
    loops, entries = PROGRAMS[program]
    head = [f"#define {name} {value}" for name, value in constants.items()]
    after = (*AFTER, *(f"cuda/{name}" for name in loops))
    body = ["namespace {", *map(template, BEFORE), step, structs, *map(template, after), "}  // namespace"]
    ends = [f"ENTRY({name}) {{ run_{name}(p); }}" for name in entries]
    return "\n".join([*head, template("cuda/device"), *body, *ends, ""])
