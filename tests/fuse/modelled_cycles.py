"""About how long a step of the CUDA kernels takes on a GPU like the H100, by a model of their machine code.

`python tests/fuse/modelled_cycles.py` prints what it says of `POINTS`. Nothing is measured: see `machine_code.cycles`.
"""

from cuda_programs import CELLS, compiled, task_of
from emulated_gpu import H100, HOPPER
from machine_code import cycles, disassembled
from recurlab.fuse.cuda import dense_plan, diagonal_plan

GHZ = 1.98  # an H200's highest clock
# Steps of some points, and the most cycles that they may take: a tenth more than they did when they were put here.
POINTS = {
    ("diagonal", "indrnn", "float32", 32, 1024): (30, 80),
    ("diagonal", "indy_gru", "float32", 32, 1024): (175, 185),
    ("diagonal", "lstm", "float32", 32, 1024): (200, 275),
    ("dense", "gru", "tf32", 16, 128): (960, 1320),
    ("dense", "gru", "bfloat16", 16, 128): (900, 1410),
    ("dense", "lstm", "bfloat16", 16, 512): (1410, 1600),
    ("dense", "gru", "tf32", 64, 512): (2580, 4640),
    ("dense", "gru", "bfloat16", 64, 512): (1670, 2590),
    ("dense", "gru", "bfloat16", 128, 1024): (5500, 7960),
}  # recurrence, cell, storage, batch and units; cycles forward and backward


def plan_of(recurrence, cell, storage, batch, units, *, backward, noisy=False, steps=2048):
    """Return the plan of a layer on a GPU like the H100 and the H200; None if it has none."""
    shape = {"steps": steps, "batch": batch, "units": units, "directions": 1}
    task = task_of(CELLS[cell], storage, backward=backward, noisy=noisy, **shape)
    return (diagonal_plan.diagonal if recurrence == "diagonal" else dense_plan.dense)(task, H100)


def functions_of(cell, plan, edit=str):
    """Return the functions of a plan that have a loop over time, and that loop."""
    functions = disassembled(compiled(CELLS[cell], plan, HOPPER, edit))
    kind = "HMMA" if plan.program.startswith("dense") else "LDG"
    # That over the chunks of a sequence takes few turns.
    return {name: (one, one.step_loop(kind)) for name, one in functions.items() if name != "combine"}


def cycles_of(cell, plan, edit=str):
    """Return how long a step takes, over all functions that take it."""
    found = [cycles(function.way(loop)) for function, loop in functions_of(cell, plan, edit).values()]
    constants = dict(plan.constants)
    # A dense kernel's teams take one group of samples after the other, a diagonal one's turn of the loop several steps.
    rounds = -(-plan.parts * constants["UNITS"] // (plan.threads * plan.teams)) if plan.teams else 1
    return sum(found) * rounds / constants.get("AHEAD", 1)


def main():
    print(f"{'':44}{'forward':>16}{'backward':>16}\n{'':44}{'cycles, us a step of one warp':>32}")
    for point in POINTS:
        found = [cycles_of(point[1], plan_of(*point, backward=backward)) for backward in (False, True)]
        print(f"{' '.join(map(str, point)):44}" + "".join(f"{each:8.0f}{each / GHZ / 1000:8.3f}" for each in found))


if __name__ == "__main__":
    main()
