"""Times and memory of candidates, in turns, so that disturbances affect all alike."""

import gc
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch.autograd.profiler import profile

from recurlab.bench.clock import TimeUp, ended_after
from recurlab.bench.layers import Candidate, has_projection, projection
from recurlab.bench.others import PEERS, program_of
from recurlab.bench.parity import Gap, check_parity
from recurlab.bench.program import Program, Runner, seconds
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.errors import RecurlabError, one_line
from recurlab.fuse.memory import visible

UNSUPPORTED = "not supported: "
WRONG = "parity failed"  # it is timed anyway, to show whether the kernel is worth repairing
FEWEST = 3  # rounds, whatever time they take
# A pass that takes less than this many seconds is called several times in its turn, at most so often.
SHORT, MOST = 0.01, 200
PAUSE = 0.003  # seconds in which the threads of the one before give up to wait for more work in a loop


@dataclass
class Timings:
    """What was found of a candidate; the seconds are empty unless `status` is ok or WRONG.

    Attributes:
        status: ok, WRONG, or "failed: " or "not supported: " and the reason.
        gap: to the eager backend.
        forward: seconds of each forward pass, without gradients.
        both: seconds of each forward and backward pass; none of what has no backward pass.
        step: seconds of one step of a sequence, where that is asked for.
        first: seconds of the first call of each pass together, in which some compile.
        passes: seconds of each forward pass that keeps what its backward pass needs, and of that
            backward pass alone.
        projection: the same of nothing but the products of the input with the input weights.
        peak: bytes; see `peak_bytes`.
    """

    status: str
    gap: Gap = field(default_factory=Gap)
    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    first: float = 0.0
    passes: list[tuple[float, float]] = field(default_factory=list)
    projection: list[tuple[float, float]] = field(default_factory=list)
    peak: int = 0

    @property
    def compilation(self) -> float:
        """How many seconds longer the first calls took than usual ones."""
        return max(0.0, self.first - sum(median(times) for times in (self.forward, self.both, self.step) if times))

    def middle(self, name: str) -> float | None:
        """Return the median of the pass `name`, in seconds; None without one."""
        times: list[float] = getattr(self, name)
        return median(times) if times else None

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


def measure(candidates: list[Candidate], shape: Shape, settings: BenchSettings) -> dict[Candidate, Timings]:
    """Return the result of each candidate: first parity and memory, then timings in turns."""
    results: dict[Candidate, Timings] = {}
    programs: dict[Candidate, _Turn] = {}
    for candidate in candidates:
        results[candidate], turn = _ready(candidate, shape, settings)
        if turn is not None:
            programs[candidate] = turn
    end = time.monotonic() + (settings.seconds or math.inf)
    try:
        for number in range(settings.repeats):
            if number >= FEWEST and time.monotonic() > end:
                break
            gc.enable()
            gc.collect()
            gc.disable()  # it would stop whoever happens to run
            for first in list(programs.values())[:1]:
                seconds(
                    first.program, first.program.timed["forward"]
                )  # else gc's use of the caches would cost it alone
            for candidate, turn in programs.items():
                if settings.device == "cpu":
                    time.sleep(PAUSE)
                turn.take(results[candidate])
    finally:
        gc.enable()
    return results


class _Turn:
    """What a candidate does each time that it is its turn.

    Args:
        program: of its layer.
        beside: of its input projection alone, if that is timed.
    """

    def __init__(self, program: Program, beside: Runner | None) -> None:
        self.program, self.beside = program, beside
        self.calls: dict[str, int] = {}

    def begin(self) -> float:
        """Make the first calls, which prepare what later ones find; return their seconds."""
        first = {name: seconds(self.program, work) for name, work in self.program.timed.items()}
        for name, work in self.program.timed.items():
            self.calls[name] = max(1, min(MOST, int(SHORT / seconds(self.program, work))))
        self._apart(Timings(""))
        return sum(first.values())

    def take(self, result: Timings) -> None:
        """Add a timing of each pass to a result; of a short one the median of several."""
        for name, work in self.program.timed.items():
            getattr(result, name).append(median(seconds(self.program, work) for _ in range(self.calls[name])))
        self._apart(result)

    def _apart(self, result: Timings) -> None:
        if self.beside is not None and isinstance(self.program, Runner):
            result.passes.append(self.program.passes())
            result.projection.append(self.beside.passes())


def _ready(candidate: Candidate, shape: Shape, settings: BenchSettings) -> tuple[Timings, _Turn | None]:
    """Return a candidate's parity and memory, and what it does in its turn, None if it can't be timed."""
    limit = settings.limit if candidate.backend in PEERS else 0
    try:
        with ended_after(limit):
            result = _check(candidate, shape, settings)
            if result.status not in ("ok", WRONG):
                return result, None
            program = program_of(candidate, shape, settings)
            beside = None
            if settings.alone and isinstance(program, Runner) and has_projection(program.work):
                beside = Runner(projection(program.work), input_grad=settings.input_grad)
            turn = _Turn(program, beside)
            result.first = turn.begin()
        if program.traced:
            result.peak = peak_bytes(program.timed["both"], settings.device)
            program.clear()
    except TimeUp:
        return Timings(f"{UNSUPPORTED}it was not ready after limit={limit} s"), None
    except Exception as error:  # whatever one of them does, the others are measured
        return replace(result, status=f"failed: {type(error).__name__}: {one_line(error)}"), None
    return result, turn


def _check(candidate: Candidate, shape: Shape, settings: BenchSettings) -> Timings:
    try:
        gap = check_parity(candidate, shape, settings)
    except RecurlabError as error:  # a shape that no kernel of the backend has room for
        return Timings(f"{UNSUPPORTED}{one_line(error)}")
    except Exception as error:  # see above
        return Timings(f"failed: {type(error).__name__}: {one_line(error)}")
    # torch's layer is the yardstick: its gap is shown, and it is timed.
    return Timings("ok" if gap is None or gap.fits or candidate.backend == "torch" else WRONG, gap or Gap())


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
    with visible(), profile(profile_memory=True) as profiler:
        work()
    assert profiler.kineto_results is not None
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most
