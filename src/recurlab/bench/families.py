"""Families of layers, one for each path through the kernels, compared with float64 and timed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from recurlab.bench import programs
from recurlab.bench.clock import elapsed
from recurlab.bench.layers import LayerCall
from recurlab.bench.machine import tf32
from recurlab.errors import RecurlabError, one_line
from recurlab.layers.rnn import RNN

FEATURES = 24


@dataclass(frozen=True)
class Layer:
    """A cell, its recurrence, T steps, B samples, H units; `noise`: zoneout, mask and resets."""

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


# Each family is another path: threads alone, time in chunks, a block alone, clusters of up to 8 and
# of 16 blocks, a cooperative grid that exchanges through L2, one with rests and several turns, and
# all that makes noise. The first ones wait for nobody, and can't hang.
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
KNOWN = ("ok", "refused", "WRONG", "FAILED")  # what a verdict begins with


def layers(family: str, *, tiny: bool) -> list[Layer]:
    """Return the layers of a family, the smallest first; for a trial, small ones."""
    found = FAMILIES[family]
    if tiny:
        made = (
            replace(one, steps=min(one.steps, 6), batch=min(one.batch, 3), units=min(one.units, 12)) for one in found
        )
        found = tuple(dict.fromkeys(made))
    return sorted(found, key=lambda one: one.size)


def kernel_sources(device: torch.device, *, tiny: bool) -> Iterator[str]:
    """Yield the sources of all kernels that the families run on a GPU."""
    for family in FAMILIES:
        for layer in layers(family, tiny=tiny):
            for precision in PRECISIONS.values():
                work = work_of(layer, "fused", torch.device("meta"), precision.dtype, precision.dtype)
                yield from programs.of_layer(work, device, allow_tf32=precision.tf32)


def work_of(layer: Layer, backend: str, device: torch.device, dtype: torch.dtype, values: torch.dtype) -> LayerCall:
    """Return a layer and its input, rounded to `values`, the same for all backends and devices."""
    options: dict[str, Any] = {"zoneout": 0.2} if layer.noise else {}
    if layer.recurrence == "block":
        options["heads"] = 4
    torch.manual_seed(0)
    made = RNN(FEATURES, layer.units, cell=layer.cell, recurrence=layer.recurrence, backend=backend, **options)
    x = torch.randn(layer.steps, layer.batch, FEATURES)
    flags = {"mask": torch.rand(x.shape[:2]) < 0.8, "resets": torch.rand(x.shape[:2]) < 0.1} if layer.noise else {}
    made.to(values).to(device=device, dtype=dtype)
    x = x.to(values).to(device=device, dtype=dtype).requires_grad_()
    return LayerCall(made, made, x, {name: flag.to(device) for name, flag in flags.items()})


def outcome(work: LayerCall, values: torch.dtype) -> dict[str, Tensor]:
    """Return by name all that a layer gives, and the gradients of all that it was given."""
    torch.manual_seed(1)  # the same noise for all
    output, final = work.call(work.input, **work.extra)
    finals = final if isinstance(final, tuple) else (final,)
    given = {"output": output} | {f"final state {index}": state for index, state in enumerate(finals)}
    cotangents = [
        torch.cos(torch.arange(t.numel(), device=t.device)).view_as(t).to(values).to(t.dtype) for t in given.values()
    ]
    leaves = {"input": work.input} | dict(work.layer.named_parameters())
    gradients = torch.autograd.grad(list(given.values()), list(leaves.values()), cotangents)
    named = {f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {name: tensor.detach() for name, tensor in (given | named).items()}


def verdict(layer: Layer, precision: Precision, device: torch.device) -> str:
    """Return the verdict on a layer in a precision: a word of `KNOWN`, then figures or a reason."""
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
    """Return what is wrong, or "", and the largest error; compares in the order of computation."""
    worst, where = 0.0, "nothing"
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
            worst, where = error, name
    return "", f"{worst:.1e} of the norm in {where}"


def _times(work: LayerCall, steps: int, precision: Precision, device: torch.device) -> str:
    """Return the microseconds that a step takes, forward and with its gradients."""

    def forward() -> None:
        with torch.no_grad():
            work.call(work.input, **work.extra)

    def step(what: Any) -> float:
        return 1e6 * median(elapsed(what, device, queued=True)[0] for _ in range(5)) / steps

    return f"{step(forward):.2f} us a step forward, {step(lambda: outcome(work, precision.dtype)):.2f} both"
