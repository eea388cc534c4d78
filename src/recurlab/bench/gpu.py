"""The plan for a GPU, up to csv, goals and picture; survives kernels that fail or hang."""

import faulthandler
import gc
import sys
import time
from datetime import UTC, datetime

import torch

from recurlab.bench import machine
from recurlab.bench.candidates import candidates, cases
from recurlab.bench.clock import copy_bandwidth
from recurlab.bench.goals import figures, goals_summary
from recurlab.bench.layers import Candidate
from recurlab.bench.machine import check_device, environment, prepared
from recurlab.bench.measure import UNSUPPORTED, Timings, measure
from recurlab.bench.plan import FULL, TINY, Item, items
from recurlab.bench.report import goals_picture
from recurlab.bench.results import BenchResults, Row, to_rows
from recurlab.bench.stages import BROKEN, LOST
from recurlab.errors import one_line

STUCK = 60  # seconds after which the process is ended: nothing else ends a kernel that hangs


def run_gpu_plan(
    device: str, output: str, *, tiny: bool, seconds: float, first: int = 0, lost: bool = False, since: str = ""
) -> int:
    """Measure the plan from its item number `first` on and show what was found since a time.

    Args:
        device: cuda, or cpu for a trial.
        output: the folder of the csv and the picture, both named after the device.
        tiny: small shapes, for a trial.
        seconds: no item is begun after these.
        first: number of the first item.
        lost: whether the one before it did not end, which is noted.
        since: what was measured before it is left out of goals and picture, as
            2026-01-01T00:00:00+00:00.

    Returns:
        0, 1 if something failed or was not reached, or BROKEN if the items after the last one need
        a new process.
    """
    check_device(device)
    end = time.monotonic() + seconds
    since = since or datetime.now(UTC).isoformat(timespec="seconds")
    plan = items(TINY if tiny else FULL, device, output)
    with prepared(plan[0].settings):
        torch_device = torch.device(device)
        bandwidth = copy_bandwidth(torch_device, size=2**22 if tiny else 2**30)
        shared = environment(plan[0].settings) | {"copy_gb_s": f"{bandwidth / 1e9:.5g}"}
        kept = BenchResults(output, shared["device"])
        print(f"{shared['device']}: a copy on the device reads and writes {bandwidth / 1e9:.4g} GB/s", flush=True)
        if lost:
            kept.add(_noted(plan[first - 1], shared, "failed: it did not end"))
        unreached = 0
        for number, item in enumerate(plan[first:], start=first):
            if time.monotonic() > end:
                unreached = len(plan) - number
                break
            print(f"item {number}: {item}", flush=True)
            faulthandler.dump_traceback_later(STUCK, exit=True, file=2)
            try:
                kept.add(_measured(item, shared))
            finally:
                faulthandler.cancel_dump_traceback_later()
            if (reason := machine.lost(torch_device)) is not None:
                print(f"{LOST}{reason}", flush=True)
                return BROKEN
    rows = [row for row in kept.rows if row["date"] >= since and row["device"] == shared["device"]]
    drawn = goals_picture(figures(rows), kept.csv.with_suffix(".png"), shared["device"])
    print("\n".join([*goals_summary(rows), f"results: {kept.csv}", drawn]))
    if unreached:
        print(f"time is up: the last {unreached} of {len(plan)} items were not measured, from {plan[-unreached]} on")
    wrong = [row for row in rows if row["status"] != "ok" and not row["status"].startswith(UNSUPPORTED)]
    return 1 if unreached or wrong else 0


def _measured(item: Item, shared: Row) -> list[Row]:
    """Return the rows of an item, those of cases that no kernel serves among them."""
    settings = item.settings
    try:
        found, refused = candidates(settings, beside=item.beside)
        results = measure(found, item.shape, settings)
    except Exception as error:  # whatever an item does, the next ones are measured
        return _noted(item, shared, f"failed: {type(error).__name__}: {one_line(error)}")
    reasons = {who: Timings(f"{UNSUPPORTED}{why}") for who, why in refused.items() if who.backend == "fused"}
    return to_rows(results | reasons, item.shape, settings, shared | {"dtype": settings.dtype})


def _noted(item: Item, shared: Row, status: str) -> list[Row]:
    """Return a row of a status for each case of an item."""
    results = {Candidate(case, "fused"): Timings(status) for case in cases(item.settings)}
    return to_rows(results, item.shape, item.settings, shared | {"dtype": item.settings.dtype})


if __name__ == "__main__":
    gc.freeze()  # else each round's collection would search all imported modules: 0.1 s
    where, folder, small, moment, limit, start, gone = sys.argv[1:]
    sys.exit(
        run_gpu_plan(
            where,
            folder,
            tiny=small == "True",
            seconds=float(limit),
            first=int(start),
            lost=gone == "True",
            since=moment,
        )
    )
