"""The clock and the memory of candidates: all of one shape in turns, so that what the machine does meets them alike."""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from recurlab.bench.candidates import Candidate, Work, prepare
from recurlab.bench.parity import Gap, check
from recurlab.bench.settings import Settings, Shape
from recurlab.errors import one_line


@dataclass
class Result:
    """What was found of a candidate; the seconds are empty unless `status` is ok.

    Attributes:
        status: ok, "parity failed", or "failed: " and the reason.
        gap: to the eager backend.
        forward: seconds of each forward pass, without gradients.
        both: seconds of each forward and backward pass.
        peak: bytes; see `peak_bytes`.
    """

    status: str
    gap: Gap = field(default_factory=Gap)
    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of the forward and of both passes."""
        return median(self.forward), median(self.both)


class Runner:
    """A candidate's passes over one shape, as a training step makes them."""

    def __init__(self, candidate: Candidate, shape: Shape, settings: Settings) -> None:
        self.work: Work = prepare(candidate, shape, settings)
        self.work.input.requires_grad_(settings.input_grad)
        with torch.no_grad():
            output = self.work.call(self.work.input, **self.work.extra)[0]
        generator = torch.Generator().manual_seed(4)
        # The gradient is given, for a loss would be timed with the layer.
        self.cotangent = torch.randn(output.shape, generator=generator).to(output)

    def forward(self) -> Tensor:
        """Run the layer, input projection and all, without keeping anything for a gradient."""
        with torch.no_grad():
            output: Tensor = self.work.call(self.work.input, **self.work.extra)[0]
        return output

    def both(self) -> Tensor:
        """Run the layer and its backward pass."""
        output: Tensor = self.work.call(self.work.input, **self.work.extra)[0]
        torch.autograd.backward(output, self.cotangent)
        return output

    def clear(self) -> None:
        """Drop the gradients."""
        for leaf in (self.work.input, *self.work.layer.parameters()):
            leaf.grad = None


def measure(candidates: list[Candidate], shape: Shape, settings: Settings) -> dict[Candidate, Result]:
    """Return what is found of each candidate: first parity and memory, then the timings in turns."""
    results, runners = {}, {}
    for candidate in candidates:
        results[candidate] = _check(candidate, shape, settings)
        if results[candidate].status != "ok":
            continue
        try:
            runner = Runner(candidate, shape, settings)
            seconds(runner, runner.forward)
            seconds(runner, runner.both)
            results[candidate].peak = peak_bytes(runner.both, settings.device)
            runner.clear()
            runners[candidate] = runner
        except Exception as error:  # whatever one of them does, the others are measured
            results[candidate].status = f"failed: {type(error).__name__}: {one_line(error)}"
    try:
        for _ in range(settings.repeats):
            gc.enable()
            gc.collect()
            gc.disable()  # it would stop whoever happens to run
            for runner in list(runners.values())[:1]:
                seconds(runner, runner.forward)  # else the first one alone would pay for the caches that gc has used
            for candidate, runner in runners.items():
                results[candidate].forward.append(seconds(runner, runner.forward))
                results[candidate].both.append(seconds(runner, runner.both))
    finally:
        gc.enable()
    return results


def _check(candidate: Candidate, shape: Shape, settings: Settings) -> Result:
    try:
        gap = check(candidate, shape, settings)
    except Exception as error:  # see above
        return Result(f"failed: {type(error).__name__}: {one_line(error)}")
    return Result("ok" if gap.fits else "parity failed", gap)


def seconds(runner: Runner, work: Callable[[], Tensor]) -> float:
    """Return how long a pass takes; what it leaves is freed after the clock has stopped."""
    device = runner.work.input.device
    _wait(device)
    start = time.perf_counter()
    output = work()
    _wait(device)
    elapsed = time.perf_counter() - start
    del output
    runner.clear()
    return elapsed


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return the most bytes of tensors alive at once while `work` runs, beyond those alive before.

    That is all that torch's allocator gives out: the output, what the backward pass keeps, gradients and temporaries,
    inside of operators too. What a library takes from the system itself is not seen, as a kernel's packed weights.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell when it starts and stops
    with profile(profile_memory=True) as profiler:
        work()
    assert profiler.kineto_results is not None
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most
