"""The first minutes on a GPU: each family of kernels in a process of its own that a limit ends.

Usage: python -m recurlab.bench.smoke DEVICE TINY SECONDS [FAMILY]; all families, or in this process
one alone. A layer in a precision makes a line: its largest error by norm to the eager backend in
float64 and in which tensor, or that a second run gave other bits, and microseconds a step.
"""

import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import IO

import torch

from recurlab.bench import programs
from recurlab.bench.families import FAMILIES, KNOWN, PRECISIONS, kernel_sources, layers, verdict
from recurlab.bench.machine import lost
from recurlab.bench.stages import LOST
from recurlab.errors import one_line
from recurlab.fuse.cuda import gpu

LIMITS = {"cuda": 25.0, "cpu": 100.0}  # seconds of a family; on a CPU with compilation
GRACE = 2.0  # of them, for a process that is killed to be gone
LEAST = 8.0  # seconds without which no family is begun
COMPILING = 60.0  # seconds for programs that are not there yet
# A line of a layer, its verdict behind it once it is known.
LINE = re.compile(rf"^  (.+ (?:{'|'.join(PRECISIONS)})): ?(.*)", re.MULTILINE)


def run_family(family: str, device: torch.device, *, tiny: bool) -> int:
    """Show a line for each layer and precision of a family; return 1 if one was wrong, else 0."""
    warnings.simplefilter("ignore", RuntimeWarning)  # kernels not measured on this device
    failed = False
    for layer in layers(family, tiny=tiny):
        for name, precision in PRECISIONS.items():
            print(f"  {layer} {name}: ", end="", flush=True)
            try:
                text = verdict(layer, precision, device)
            except Exception as error:  # whatever one does, the others are tried
                text = f"FAILED: {type(error).__name__}: {one_line(error)}"
            print(text, flush=True)
            failed |= text.startswith(("WRONG", "FAILED"))
            if (reason := lost(device)) is not None:
                print(f"{LOST}{reason}", flush=True)
                return 1
    return int(failed)


def run_smoke(
    device: torch.device, *, tiny: bool, seconds: float, limit: float = 0.0, command: Sequence[str] = (),
    families: Sequence[str] = tuple(FAMILIES),
) -> int:  # fmt: skip
    """Run all families, each in its own process; return how many failed.

    Args:
        device: cuda, or cpu for a trial.
        tiny: small layers, for a trial.
        seconds: that all may take; families that are not reached are named.
        limit: seconds that one family may take until its process is gone, 0: those of `LIMITS`.
        command: what runs a family, given the device, whether tiny, and its name; empty: this
            module.
        families: names.
    """
    start, failed = time.monotonic(), list[str]()
    if device.type == "cuda":
        room = min(COMPILING, seconds / 2)
        for line in programs.compile_all(kernel_sources(device, tiny=tiny), gpu.properties(device).capability, room):
            print(line)  # and the layers that need it say so too
    limit = limit or LIMITS[device.type]
    command = command or (sys.executable, "-m", "recurlab.bench.smoke")
    for family in families:
        began = time.monotonic()
        room = min(limit, start + seconds - began)
        print(f"{family}:", flush=True)
        if room < min(limit, LEAST):
            trouble = "not run: time is up"
        else:
            trouble = _watched([*command, device.type, str(tiny), "0", family], room)
        print(f"{family}: {trouble or 'ok'}, {time.monotonic() - began:.0f} s", flush=True)
        failed += [f"{family}: {trouble}"] if trouble else []
    print(f"smoke: {len(failed)} of {len(families)} families failed, {time.monotonic() - start:.0f} s")
    for line in failed:
        print(f"  {line}", flush=True)
    return len(failed)


def _watched(command: list[str], limit: float) -> str:
    """Run the process of a family, show its output at once; return what went wrong, or ""."""
    # In the process group of this one, so that who ends the group ends all.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = bytearray()
    assert process.stdout is not None
    reader = Thread(target=_copy, args=(process.stdout, seen), daemon=True)
    reader.start()
    hung = False
    try:
        process.wait(limit - GRACE)
    except subprocess.TimeoutExpired:
        hung = True
    finally:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # one that waits for a driver can't be ended
            process.wait(GRACE)
    reader.join(GRACE / 4)
    return _trouble(seen.decode(errors="replace"), "hung" if hung else f"ended with {process.returncode}", limit)


def _copy(pipe: IO[bytes], seen: bytearray) -> None:
    with pipe:
        while chunk := os.read(pipe.fileno(), 1 << 16):
            seen += chunk
            print(chunk.decode(errors="replace"), end="", flush=True)


def _trouble(text: str, end: str, limit: float) -> str:
    """Return what went wrong in a family, first by its smallest layer, or ""."""
    lines = LINE.findall(text)
    wrong = [f"{layer}: {rest}" for layer, rest in lines if rest.startswith(("WRONG", "FAILED"))][:1]
    if wrong:
        wrong = [wrong[0].partition(";")[0]]  # without its times
    wrong += re.findall(rf"^{LOST}(.+)", text, re.MULTILINE)
    if end == "hung" or (end != "ended with 0" and not wrong):
        last = next((layer for layer, rest in reversed(lines) if not rest.startswith(KNOWN)), "")
        limited = f", its limit is {limit:.0f} s" if end == "hung" else ""
        wrong.append(f"{end}{f' in {last}' if last else ''}{limited}")
    if not wrong and not any(rest.startswith("ok") for _, rest in lines):
        wrong.append(f"no layer was served{next((f': {rest}' for _, rest in lines), '')}")
    return "; ".join(wrong)


if __name__ == "__main__":
    where, little, most, *only = sys.argv[1:]
    device, small = torch.device(where), little == "True"
    sys.exit(
        run_family(only[0], device, tiny=small) if only else min(1, run_smoke(device, tiny=small, seconds=float(most)))
    )
