"""The first minutes on a GPU: each family of kernels in a process of its own that a limit ends.

Usage: python -m recurlab.bench.smoke DEVICE TINY SECONDS [FAMILY]; all families, or in this process one alone. A layer
in a precision makes a line: its largest error by norm to the eager backend in float64 and in which tensor, or that a
second run gave other bits, and microseconds a step.
"""

import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from threading import Thread
from typing import IO, Any

import torch
from torch import Tensor

from recurlab.bench import programs
from recurlab.bench.candidates import Work
from recurlab.bench.clock import elapsed
from recurlab.bench.machine import lost, tf32
from recurlab.errors import RecurlabError, one_line
from recurlab.fuse import gpu
from recurlab.layers.rnn import RNN

FEATURES = 24
LIMITS = {"cuda": 25.0, "cpu": 100.0}  # seconds of a family; on a CPU its kernels are compiled meanwhile
GRACE = 2.0  # of them, for a process that is killed to be gone
LEAST = 8.0  # seconds without which no family is begun
COMPILING = 60.0  # seconds for programs that are not there yet


@dataclass(frozen=True)
class Layer:
    """A cell with a recurrence, T steps, B samples and H units; `noise`: zoneout, a mask and resets."""

    cell: str
    recurrence: str
    steps: int
    batch: int
    units: int
    noise: bool = False

    def __str__(self) -> str:
        noise = " noise" if self.noise else ""
        return f"{self.cell} {self.recurrence} T={self.steps} B={self.batch} H={self.units}{noise}"

    @property
    def size(self) -> int:
        """How much there is to compute."""
        return self.steps * self.batch * self.units


# Each family is another path: threads alone, time in chunks, a block alone, clusters of up to 8 and of 16 blocks, a
# cooperative grid that exchanges through L2, one with rests and several turns, and all that makes noise. The first ones
# wait for nobody, and can't hang.
FAMILIES = {
    "diagonal": (
        Layer("indrnn", "diagonal", 65, 5, 200),
        Layer("indy_lstm", "diagonal", 65, 5, 200),
        Layer("indy_gru", "diagonal", 65, 32, 1024),
    ),
    "chunks": (Layer("indy_gru", "diagonal", 1500, 2, 65),),
    "block alone": (Layer("gru", "dense", 20, 3, 16), Layer("rnn", "block", 20, 17, 64)),
    "cluster of 8": (Layer("gru", "dense", 64, 1, 128), Layer("lstm", "dense", 64, 5, 120)),
    "cluster of 16": (Layer("gru", "dense", 64, 33, 250), Layer("gru", "dense", 64, 16, 512)),
    "grid": (Layer("lstm", "dense", 64, 16, 512), Layer("gru", "dense", 64, 64, 1024)),
    "odd grid": (Layer("lstm", "dense", 16, 65, 515), Layer("gru", "dense", 32, 128, 1000)),
    "noise": (Layer("gru", "dense", 20, 9, 130, True), Layer("indy_lstm", "diagonal", 20, 9, 130, True)),
}


@dataclass(frozen=True)
class Precision:
    """What a layer computes in, and the largest error by norm of outputs and of gradients."""

    dtype: torch.dtype
    tf32: bool
    bounds: tuple[float, float]


PRECISIONS = {
    "float32": Precision(torch.float32, False, (2e-5, 4e-5)),
    "tf32": Precision(torch.float32, True, (3e-3, 5e-3)),
    "bfloat16": Precision(torch.bfloat16, False, (2e-2, 3e-2)),
}
# A line of a layer, "ok" and the like behind it once it is known.
LINE = re.compile(rf"^  (.+ (?:{'|'.join(PRECISIONS)})): ?(.*)", re.MULTILINE)
KNOWN = ("ok", "refused", "WRONG", "FAILED")


def layers(family: str, *, tiny: bool) -> list[Layer]:
    """Return the layers of a family, the smallest first; for a trial, small ones."""
    found = FAMILIES[family]
    if tiny:
        made = (
            replace(one, steps=min(one.steps, 6), batch=min(one.batch, 3), units=min(one.units, 12)) for one in found
        )
        found = tuple(dict.fromkeys(made))
    return sorted(found, key=lambda one: one.size)


def sources(device: torch.device, *, tiny: bool) -> Iterator[str]:
    """Yield the sources of all kernels that the families run on a GPU."""
    for family in FAMILIES:
        for layer in layers(family, tiny=tiny):
            for precision in PRECISIONS.values():
                work = work_of(layer, "fused", torch.device("meta"), precision.dtype, precision.dtype)
                yield from programs.of_layer(work, device, allow_tf32=precision.tf32)


def work_of(layer: Layer, backend: str, device: torch.device, dtype: torch.dtype, values: torch.dtype) -> Work:
    """Return a layer and its input, of numbers that `values` can hold, the same for all backends and devices."""
    options: dict[str, Any] = {"zoneout": 0.2} if layer.noise else {}
    if layer.recurrence == "block":
        options["heads"] = 4
    torch.manual_seed(0)
    made = RNN(FEATURES, layer.units, cell=layer.cell, recurrence=layer.recurrence, backend=backend, **options)
    x = torch.randn(layer.steps, layer.batch, FEATURES)
    flags = {"mask": torch.rand(x.shape[:2]) < 0.8, "resets": torch.rand(x.shape[:2]) < 0.1} if layer.noise else {}
    made.to(values).to(device=device, dtype=dtype)
    x = x.to(values).to(device=device, dtype=dtype).requires_grad_()
    return Work(made, made, x, {name: flag.to(device) for name, flag in flags.items()})


def outcome(work: Work, values: torch.dtype) -> dict[str, Tensor]:
    """Return by name all that a layer gives, and the gradients of all that it was given."""
    torch.manual_seed(1)  # the same noise for all
    output, final = work.call(work.input, **work.extra)
    finals = final if isinstance(final, tuple) else (final,)
    given = {"output": output} | {f"final state {place}": state for place, state in enumerate(finals)}
    cotangents = [
        torch.cos(torch.arange(t.numel(), device=t.device)).view_as(t).to(values).to(t.dtype) for t in given.values()
    ]
    leaves = {"input": work.input} | dict(work.layer.named_parameters())
    gradients = torch.autograd.grad(list(given.values()), list(leaves.values()), cotangents)
    named = {f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {name: tensor.detach() for name, tensor in (given | named).items()}


def verdict(layer: Layer, precision: Precision, device: torch.device) -> str:
    """Return what is found of a layer in a precision: a word of `KNOWN` and the figures or the reason."""
    with tf32(precision.tf32):
        work = work_of(layer, "fused", device, precision.dtype, precision.dtype)
        try:
            found, again = (outcome(work, precision.dtype) for _ in range(2))
        except RecurlabError as error:
            return f"{'refused' if 'backend=' in str(error) else 'FAILED'}: {one_line(error)}"
        right = outcome(work_of(layer, "eager", device, torch.float64, precision.dtype), precision.dtype)
        wrong, figures = _compared(found, again, right, precision, relu=layer.cell == "indrnn")
        return f"{'WRONG' if wrong else 'ok'}: {wrong or figures}; {_times(work, layer.steps, precision, device)}"


def _compared(
    found: dict[str, Tensor], again: dict[str, Tensor], right: dict[str, Tensor], precision: Precision, *, relu: bool
) -> tuple[str, str]:
    """Return what is wrong, or "", and the largest error; tensors come in the order in which they are computed."""
    worst, place = 0.0, "nothing"
    # Where a rounding turns a ReLU, a whole term goes.
    loose = 5 if relu and precision is not PRECISIONS["float32"] else 1
    for name, wanted in right.items():
        if not torch.equal(found[name], again[name]):
            return f"{name} differs from run to run", ""
        # What cancels has no more digits than its terms, which are of the order of 1.
        size = max(wanted.norm().item(), 0.1 * wanted.numel() ** 0.5)
        error, bound = (
            (found[name].double() - wanted).norm().item() / size,
            loose * precision.bounds["gradient" in name],
        )
        if not error <= bound:
            return f"{error:.1e} of the norm in {name}, allowed is {bound:.0e}", ""
        if error >= worst:
            worst, place = error, name
    return "", f"{worst:.1e} of the norm in {place}"


def _times(work: Work, steps: int, precision: Precision, device: torch.device) -> str:
    """Return the microseconds that a step takes, forward and with its gradients."""

    def forward() -> None:
        with torch.no_grad():
            work.call(work.input, **work.extra)

    def step(what: Any) -> float:
        return 1e6 * median(elapsed(what, device, queued=True)[0] for _ in range(5)) / steps

    return f"{step(forward):.2f} us a step forward, {step(lambda: outcome(work, precision.dtype)):.2f} both"


def run_family(family: str, device: torch.device, *, tiny: bool) -> int:
    """Show a line for each layer and precision of a family; return 1 if one was wrong, else 0."""
    warnings.simplefilter("ignore", RuntimeWarning)  # that the kernels are not measured on this device
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
                print(f"the device is lost to this process: {reason}", flush=True)
                return 1
    return int(failed)


def run(
    device: torch.device, *, tiny: bool, seconds: float, limit: float = 0.0, command: Sequence[str] = (),
    families: Sequence[str] = tuple(FAMILIES),
) -> int:  # fmt: skip
    """Run all families, each in its own process; return how many failed.

    Args:
        device: cuda, or cpu for a trial.
        tiny: small layers, for a trial.
        seconds: that all may take; families that are not reached are named.
        limit: seconds that one family may take until its process is gone, 0: those of `LIMITS`.
        command: what runs a family, given the device, whether tiny, and its name; empty: this module.
        families: names.
    """
    start, failed = time.monotonic(), list[str]()
    if device.type == "cuda":
        room = min(COMPILING, seconds / 2)
        failed += programs.compile_all(sources(device, tiny=tiny), gpu.properties(device).capability, room)
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
    print(f"smoke: {len(failed)} failed of {len(families)} families, {time.monotonic() - start:.0f} s")
    for line in failed:
        print(f"  {line}", flush=True)
    return len(failed)


def _watched(command: list[str], limit: float) -> str:
    """Run the process of a family, its output shown as it comes, and return what went wrong, or ""."""
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
    """Return what went wrong in a family, by its output and how its process has ended: the smallest layers of it."""
    lines = LINE.findall(text)
    wrong = [f"{layer}: {rest}" for layer, rest in lines if rest.startswith(("WRONG", "FAILED"))][:1]
    if wrong:
        wrong = [wrong[0].partition(";")[0]]  # without its times
    if end == "hung" or (end != "ended with 0" and not wrong):
        place = next((layer for layer, rest in reversed(lines) if not rest.startswith(KNOWN)), "")
        limited = f", its limit is {limit:.0f} s" if end == "hung" else ""
        wrong.append(f"{end}{f' in {place}' if place else ''}{limited}")
    if not wrong and not any(rest.startswith("ok") for _, rest in lines):
        wrong.append("no layer was served")
    return "; ".join(wrong)


if __name__ == "__main__":
    where, little, most, *only = sys.argv[1:]
    place, small = torch.device(where), little == "True"
    sys.exit(run_family(only[0], place, tiny=small) if only else min(1, run(place, tiny=small, seconds=float(most))))
