"""Cells that users could have written: five from the literature, and some that are odd on purpose."""

from dataclasses import dataclass, field

from torch import sigmoid, tanh
from torch.nn import functional as F

import recurlab


@dataclass(frozen=True)
class MinimalGatedUnit(recurlab.Cell):
    """Zhou et al., arXiv 1603.09420."""

    gates = ("forget", "candidate")

    def step(self, x, h, recur):
        f = sigmoid(x.forget + recur.forget(h))
        n = tanh(x.candidate + recur.candidate(f * h))
        return (1 - f) * h + f * n


@dataclass(frozen=True)
class MinGRU(recurlab.Cell):
    """Feng et al., arXiv 2410.01201: no gate has a recurrence."""

    gates = ("update", "candidate")

    def step(self, x, h, recur):
        z = sigmoid(x.update)
        return (1 - z) * h + z * x.candidate


@dataclass(frozen=True)
class Janet(recurlab.Cell):
    """van der Westhuizen and Lasenby, arXiv 1804.04849."""

    beta: float = 1.0
    gates = ("forget", "candidate")

    def step(self, x, c, recur):
        s = x.forget + recur.forget(c)
        candidate = tanh(x.candidate + recur.candidate(c))
        return sigmoid(s) * c + (1 - sigmoid(s - self.beta)) * candidate


@dataclass(frozen=True)
class LightGRU(recurlab.Cell):
    """Ravanelli et al., arXiv 1803.10225."""

    gates = ("update", "candidate")

    def step(self, x, h, recur):
        z = sigmoid(x.update + recur.update(h))
        inner = F.relu(x.candidate + recur.candidate(h))
        return z * h + (1 - z) * inner


@dataclass(frozen=True)
class ChaosFree(recurlab.Cell):
    """Laurent and von Brecht, arXiv 1612.06212."""

    gates = ("forget", "input", "candidate")

    def step(self, x, h, recur):
        θ = sigmoid(x.forget + recur.forget(h))
        eta = sigmoid(x.input + recur.input(h))
        return θ * tanh(h) + eta * tanh(x.candidate)


class TwoPhasePeephole(recurlab.Cell):
    """Two phases, two states, the output gate looks at the new one; gates are not in the order of use."""

    gates = ("output", "candidate", "forget")
    states = ("h", "c")

    def __init__(self, peep=0.3):
        self.peep = peep

    def step(self, x, state, recur):
        h, c = state
        f = sigmoid(x.forget + recur.forget(h) + self.peep * c)
        c = f * c + (1 - f) * tanh(x.candidate + recur.candidate(f * h))
        return sigmoid(x.output + recur.output(h) - self.peep * c) * tanh(c), c


@dataclass(frozen=True)
class ThreeStates(recurlab.Cell):
    gates = ("b", "a")
    states = ("h", "fast", "slow")

    def step(self, x, state, recur):
        h, fast, slow = state
        fast = 0.5 * fast + tanh(x.a + recur.a(h))
        slow = 0.9 * slow + 0.1 * fast * sigmoid(x.b + recur.b(fast - slow))
        return tanh(fast + slow) - 0.1 * h, fast, slow


@dataclass(frozen=True)
class OperandOfTwoStates(recurlab.Cell):
    gates = ("a", "b")
    states = ("h", "m")

    def step(self, x, state, recur):
        h, m = state
        both = h * m + 0.5 * h
        new = tanh(x.a + recur.a(both))
        return new * sigmoid(x.b + recur.b(both)), 0.5 * m + 0.5 * new


@dataclass(frozen=True)
class GateOutsideSums(recurlab.Cell):
    gates = ("a", "b")

    def step(self, x, h, recur):
        r = recur.a(h)
        return tanh(x.a * r + x.b) + 0.3 * r * sigmoid(x.a) - 0.1 * recur.b(h) * x.b


@dataclass(frozen=True)
class IgnoredGate(recurlab.Cell):
    gates = ("used", "unused", "asked")

    def step(self, x, h, recur):
        recur.asked(h)
        return tanh(x.used + recur.used(h))


@dataclass
class Unhashable(recurlab.Cell):
    factors: list = field(default_factory=lambda: [0.5, 0.25])
    gates = ("real",)
    states = ("state", "next")

    def step(self, x, state, recur):
        vec, mask = state
        new = tanh(x.real + recur.real(vec)) * self.factors[0]
        return new + self.factors[1] * mask, mask + new * vec


PUBLISHED = {"mgu": MinimalGatedUnit(), "mingru": MinGRU(), "janet": Janet(), "ligru": LightGRU(), "cfn": ChaosFree()}
ODD = {
    "two_phases_and_peepholes": TwoPhasePeephole(),
    "three_states": ThreeStates(),
    "operand_of_two_states": OperandOfTwoStates(),
    "gate_outside_sums": GateOutsideSums(),
    "ignored_gate": IgnoredGate(),
    "unhashable": Unhashable(),
}
CELLS = {**PUBLISHED, **ODD}
