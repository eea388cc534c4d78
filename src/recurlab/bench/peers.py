"""Our fused layer beside other GRUs and LSTMs: torch's layers, and packages if installed."""

import csv
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

import torch

from recurlab import __version__
from recurlab.bench.candidates import candidates, cases
from recurlab.bench.machine import check_device, environment, lost, tf32
from recurlab.bench.measure import UNSUPPORTED, Timings, measure
from recurlab.bench.others import PEERS, PRECISIONS, Peer
from recurlab.bench.plan import FULL, TINY, Sizes
from recurlab.bench.program import seconds
from recurlab.bench.results import Row, csv_path
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.bench.stages import LOST
from recurlab.bench.workload import Workload
from recurlab.errors import one_line, path_of

OURS = "recurlab"
TRIAL = replace(TINY, dense=TINY.dense[:1])
FIELDS = (
    "peer", "version", "cell", "dtype", "tf32", "shape", "forward_ms", "forward_backward_ms", "forward_ratio_to_ours",
    "forward_backward_ratio_to_ours", "status", "device", "date", "torch",
)  # fmt: skip
ELSEWHERE = ("compile",)  # of our own loop, unrolled: minutes for a shape
WARM = 2  # calls of each pass that are not counted: kernels are compiled and chosen in them


def run_peers(device: str, output: str, *, tiny: bool, seconds: float) -> int:
    """Time our fused layer and every peer at the shapes of the plan; say how they compare.

    Args:
        device: cuda, or cpu for a trial.
        output: the folder of <device>-peers.csv, which is written anew.
        tiny: small shapes, for a trial.
        seconds: nothing is begun after these.

    Returns:
        1 if our layer failed, else 0, whatever a peer did.
    """
    check_device(device)
    end = time.monotonic() + seconds
    plan = list(order(TRIAL if tiny else FULL, device, list(_there())))
    shared = {name: value for name, value in environment(BenchSettings(device=device)).items() if name in FIELDS}
    folder = path_of("output", output)
    folder.mkdir(parents=True, exist_ok=True)
    path = csv_path(folder, f"{shared['device']} peers")
    rows: list[Row] = []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in _measured(plan, end):
            writer.writerow(shared | row)
            file.flush()
            rows.append(row)
    print("\n".join([*peers_summary(rows), f"results: {path}"]))
    ours = [row["status"] for row in rows if row["peer"] == OURS]
    return 0 if all(status == "ok" or status.startswith(UNSUPPORTED) for status in ours) else 1


def _there() -> Iterator[str]:
    """Yield the peers of a GPU that are installed; print a line for each other one."""
    for name, peer in PEERS.items():
        if "cuda" in peer.devices and name not in ELSEWHERE:
            reason = peer.absent()
            if reason is None:
                yield name
            else:
                print(f"skipped: {name}: {reason}", flush=True)


def order(sizes: Sizes, device: str, there: list[str]) -> Iterator[tuple[Workload, str]]:
    """Yield what is timed: ours before the peers of each workload that any peer has."""
    wanted = [(cell, shape) for shape in sizes.dense for cell in ("gru", "lstm")]
    wanted += [("indrnn", shape) for shape in (sizes.many[0], sizes.few[0])]
    workloads = [
        workload_of(cell, shape, precision, device, sizes.repeats) for cell, shape in wanted for precision in PRECISIONS
    ]
    begun = set()
    for last in (False, True):
        for workload in workloads:
            names = [n for n in there if PEERS[n].last == last and PEERS[n].refusal(workload) is None]
            if names and workload not in begun:
                yield workload, OURS
                begun.add(workload)
            for name in names:
                yield workload, name


def workload_of(cell: str, shape: Shape, precision: str, device: str, repeats: int) -> Workload:
    """Return a layer of a cell, with its own recurrence and without options, in one of `PRECISIONS`."""
    dtype, wide = PRECISIONS[precision]
    settings = BenchSettings(
        cells=(cell,), shapes=(shape,), backends=("fused",), dtype=dtype, tf32=wide, device=device, repeats=repeats
    )
    (case,) = cases(settings)
    return Workload(case, shape, settings)


def _measured(plan: Sequence[tuple[Workload, str]], end: float) -> Iterator[Row]:
    """Yield a row for each part of the plan, until the time is up or the device answers no more."""
    own: dict[Workload, Timings] = {}
    for number, (workload, name) in enumerate(plan):
        if time.monotonic() > end:
            print(f"time is up: the last {len(plan) - number} of {len(plan)} were not begun, from {workload} {name} on")
            return
        with tf32(workload.settings.tf32):
            if name == OURS:
                found = own[workload] = _ours(workload)
            else:
                found = _timed(PEERS[name], workload)
        row = _row(workload, name, found, own[workload])
        told = f"{row['forward_backward_ms']} ms, {row['forward_backward_ratio_to_ours'] or 'not'} times ours"
        print(f"{workload} {name}: {told if found.status == 'ok' else found.status}", flush=True)
        yield row | {"version": PEERS[name].version() if name in PEERS else __version__}
        if found.status.startswith("failed") and (reason := lost(torch.device(workload.settings.device))):
            print(f"{LOST}{reason}")
            return


def _ours(workload: Workload) -> Timings:
    """Return what the bench finds of our layer, of its numbers too."""
    try:
        found, refused = candidates(workload.settings, beside=False)
        results = measure(found, workload.shape, workload.settings)
    except Exception as error:  # whatever happens, the others are timed
        return Timings(f"failed: {type(error).__name__}: {one_line(error)}")
    (result,) = [*results.values(), *(Timings(f"{UNSUPPORTED}{why}") for why in refused.values())]
    return result


def _timed(peer: Peer, workload: Workload) -> Timings:
    """Return the times of a peer, apart from the others, as it may take the device with it; its numbers are its own.

    Unlike `measure` it times nothing in turns.
    """
    try:
        program = peer.program(workload)
        passes = program.timed["forward"], program.timed["both"]
        rounds = [[seconds(program, work) for work in passes] for _ in range(WARM + workload.settings.repeats)]
    except Exception as error:  # see above
        return Timings(f"failed: {type(error).__name__}: {one_line(error)}")
    forward, both = (list(times) for times in zip(*rounds[WARM:], strict=True))
    return Timings("ok", forward=forward, both=both)


def _row(workload: Workload, name: str, found: Timings, ours: Timings) -> Row:
    settings = workload.settings
    row = dict.fromkeys(FIELDS[: FIELDS.index("device")], "") | {
        "peer": name,
        "cell": workload.cell,
        "dtype": settings.dtype,
        "tf32": str(settings.tf32).lower(),
        "shape": str(workload.shape),
        "status": found.status,
    }
    for what, name in {"forward": "forward", "forward_backward": "both"}.items():
        theirs, own = found.middle(name), ours.middle(name)
        row[f"{what}_ms"] = "" if theirs is None else f"{1000 * theirs:.6g}"
        if found.status == ours.status == "ok" and theirs is not None and own is not None:
            row[f"{what}_ratio_to_ours"] = f"{theirs / own:.4g}"
    return row


def peers_summary(rows: Sequence[Row]) -> list[str]:
    """Return lines: how many times as long as ours each peer took, and what it could not do."""
    ratios: dict[str, list[float]] = {}
    troubles: dict[str, int] = {}
    for row in rows:
        precision = "tf32" if (row["dtype"], row["tf32"]) == ("float32", "true") else row["dtype"]
        if row["status"] != "ok":
            line = f"{row['peer']} {row['cell']} {precision}: {row['status']}"
            troubles[line] = troubles.get(line, 0) + 1
        elif row["peer"] != OURS and (ratio := row["forward_backward_ratio_to_ours"]):
            ratios.setdefault(f"{row['peer']} {row['cell']} {precision}", []).append(float(ratio))
    return [
        "peers: times as long as ours, forward and backward: median, least and most",
        *(f"{median(v):8.3g} {min(v):8.3g} {max(v):8.3g}  {name}, {len(v)} shapes" for name, v in ratios.items()),
        *(f"{line}: {count} shapes" for line, count in troubles.items()),
    ]


if __name__ == "__main__":
    gc.freeze()  # see gpu.py
    where, into, small, limit = sys.argv[1:]
    sys.exit(run_peers(where, into, tiny=small == "True", seconds=float(limit)))
