"""The passes of a candidate over one shape, as they are timed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recurlab.bench.clock import elapsed
from recurlab.bench.layers import LayerCall

Pass = Callable[[], Any]
# From a cotangent of the output, (T, B, H): the output and gradients by name, as our layer has them.
Results = Callable[[Tensor], dict[str, Tensor]]


class Program:
    """What a candidate runs over one shape, on a CPU unless a subclass says otherwise.

    Args:
        timed: the passes that it has, by the names of the lists in `Timings`: "forward", the layer
            with its input projection, nothing kept for a gradient; "both", with its backward pass;
            "step", one step of a sequence, from the state that the last one has left.
        results: what its numbers are compared by; None where they are its own affair.
    """

    device = torch.device("cpu")
    traced = False  # whether torch gives out the memory that it needs

    def __init__(self, timed: dict[str, Pass], results: Results | None = None) -> None:
        self.timed = timed
        self.results = results

    def clear(self) -> None:
        """Drop what a pass has left."""


class Runner(Program):
    """The passes of a layer of torch's kind, as a training step makes them."""

    traced = True

    def __init__(self, work: LayerCall, *, input_grad: bool, results: Results | None = None) -> None:
        steps = {} if work.step is None else {"step": work.step}
        super().__init__({"forward": self.forward, "both": self.both, **steps}, results)
        self.work = work
        self.device = work.input.device
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
        forward, output = elapsed(self.kept, self.device, queued=True)
        backward, _ = elapsed(lambda: torch.autograd.backward(output, self.cotangent), self.device, queued=True)
        self.clear()
        return forward, backward

    def clear(self) -> None:
        """Drop the gradients."""
        for leaf in (self.work.input, *self.work.layer.parameters()):
            leaf.grad = None


def seconds(program: Program, work: Pass) -> float:
    """Return how long a pass takes; what it leaves is freed after the clock has stopped."""
    time, output = elapsed(work, program.device)
    del output
    program.clear()
    return time
