"""Times and memory of candidates, in turns, so that disturbances affect all alike."""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from recurlab.bench.candidates import Candidate, LayerCall, prepare_layer, projection
from recurlab.bench.clock import elapsed
from recurlab.bench.parity import Gap, check_parity
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.errors import RecurlabError, one_line

UNSUPPORTED = "not supported: "
WRONG = "parity failed"  # it is timed anyway, to show whether the kernel is worth repairing


@dataclass
class Timings:
    """What was found of a candidate; the seconds are empty unless `status` is ok or WRONG.

    Attributes:
        status: ok, WRONG, or "failed: " or "not supported: " and the reason.
        gap: to the eager backend.
        forward: seconds of each forward pass, without gradients.
        both: seconds of each forward and backward pass.
        passes: seconds of each forward pass that keeps what its backward pass needs, and of that
            backward pass alone.
        projection: the same of nothing but the products of the input with the input weights.
        peak: bytes; see `peak_bytes`.
    """

    status: str
    gap: Gap = field(default_factory=Gap)
    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    passes: list[tuple[float, float]] = field(default_factory=list)
    projection: list[tuple[float, float]] = field(default_factory=list)
    peak: int = 0

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of the forward and of both passes."""
        return median(self.forward), median(self.both)

    @property
    def alone(self) -> tuple[float, float] | None:
        """Medians of forward and backward pass minus the projection's; None if not measured.

        What the layer computes beside the two products is the recurrence's: sums of bias gradients,
        copies, casts.
        """
        if not self.passes:
            return None
        forward, backward = (
            median(whole) - median(part)
            for whole, part in zip(zip(*self.passes, strict=True), zip(*self.projection, strict=True), strict=True)
        )
        return forward, backward


class Runner:
    """The passes of a candidate's layer over one shape, as a training step makes them."""

    def __init__(self, work: LayerCall, *, input_grad: bool) -> None:
        self.work = work
        self.work.input.requires_grad_(input_grad)
        with torch.no_grad():
            output = self.work.call(self.work.input, **self.work.extra)[0]
        generator = torch.Generator(output.device).manual_seed(4)
        factory = {"device": output.device, "dtype": output.dtype}
        # The gradient is given, for a loss would be timed with the layer.
        self.cotangent = torch.randn(output.shape, generator=generator, **factory)

    def forward(self) -> Tensor:
        """Run the layer, input projection and all, without keeping anything for a gradient."""
        with torch.no_grad():
            output: Tensor = self.work.call(self.work.input, **self.work.extra)[0]
        return output

    def kept(self) -> Tensor:
        """Run the layer and keep what its backward pass needs."""
        output: Tensor = self.work.call(self.work.input, **self.work.extra)[0]
        return output

    def both(self) -> Tensor:
        """Run the layer and its backward pass."""
        output = self.kept()
        torch.autograd.backward(output, self.cotangent)
        return output

    def passes(self) -> tuple[float, float]:
        """Return the seconds of the two passes of `both`, each on its own."""
        device = self.work.input.device
        forward, output = elapsed(self.kept, device, queued=True)
        backward, _ = elapsed(lambda: torch.autograd.backward(output, self.cotangent), device, queued=True)
        self.clear()
        return forward, backward

    def clear(self) -> None:
        """Drop the gradients."""
        for leaf in (self.work.input, *self.work.layer.parameters()):
            leaf.grad = None


def measure(candidates: list[Candidate], shape: Shape, settings: BenchSettings) -> dict[Candidate, Timings]:
    """Return the result of each candidate: first parity and memory, then timings in turns."""
    results: dict[Candidate, Timings] = {}
    runners: dict[Candidate, list[Runner]] = {}
    for candidate in candidates:
        results[candidate] = _check(candidate, shape, settings)
        if results[candidate].status not in ("ok", WRONG):
            continue
        try:
            work = prepare_layer(candidate, shape, settings)
            works = [work, projection(work)] if settings.alone else [work]
            made = [Runner(one, input_grad=settings.input_grad) for one in works]
            _time(Timings(""), made)  # the first calls prepare what later ones find
            results[candidate].peak = peak_bytes(made[0].both, settings.device)
            made[0].clear()
            runners[candidate] = made
        except Exception as error:  # whatever one of them does, the others are measured
            results[candidate].status = f"failed: {type(error).__name__}: {one_line(error)}"
    try:
        for _ in range(settings.repeats):
            gc.enable()
            gc.collect()
            gc.disable()  # it would stop whoever happens to run
            for first, *_ in list(runners.values())[:1]:
                seconds(first, first.forward)  # else gc's use of the caches would cost the first alone
            for candidate, made in runners.items():
                _time(results[candidate], made)
    finally:
        gc.enable()
    return results


def _time(result: Timings, runners: list[Runner]) -> None:
    """Add one timing of each pass: of a layer, and where it is beside it, of its projection."""
    layer, *beside = runners
    result.forward.append(seconds(layer, layer.forward))
    result.both.append(seconds(layer, layer.both))
    for part in beside:
        result.passes.append(layer.passes())
        result.projection.append(part.passes())


def _check(candidate: Candidate, shape: Shape, settings: BenchSettings) -> Timings:
    try:
        gap = check_parity(candidate, shape, settings)
    except RecurlabError as error:  # a shape that no kernel of the backend has room for
        return Timings(f"{UNSUPPORTED}{one_line(error)}")
    except Exception as error:  # see above
        return Timings(f"failed: {type(error).__name__}: {one_line(error)}")
    # torch's layer is the yardstick: its gap is shown, and it is timed.
    return Timings("ok" if gap.fits or candidate.backend == "torch" else WRONG, gap)


def seconds(runner: Runner, work: Callable[[], Tensor]) -> float:
    """Return how long a pass takes; what it leaves is freed after the clock has stopped."""
    time, output = elapsed(work, runner.work.input.device)
    del output
    runner.clear()
    return time


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return the most bytes of tensors alive at once while `work` runs, beyond those alive before.

    That is all that torch's allocator gives out: the output, what the backward pass keeps,
    gradients and temporaries, inside of operators too. What a library takes from the system itself
    is not seen, as a kernel's packed weights.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints its start and stop
    with profile(profile_memory=True) as profiler:
        work()
    assert profiler.kineto_results is not None
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most
