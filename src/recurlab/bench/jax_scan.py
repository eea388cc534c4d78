"""JAX: a cell's traced step in `lax.scan`, compiled by XLA."""

import operator
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurlab.bench.layers import Case
from recurlab.bench.program import Pass, Program
from recurlab.bench.workload import Workload
from recurlab.errors import RecurlabError, one_line
from recurlab.fuse.step.expressions import Node
from recurlab.fuse.step.spelling import BINARY, PREFIX
from recurlab.fuse.step.trace import UnfusableError, trace

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "lt": operator.lt,
    "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor, "neg": operator.neg, "not": operator.invert,
}  # fmt: skip
assert OPERATORS.keys() == BINARY.keys() | PREFIX.keys()
Values = dict[str, Any]

_started_with: list[int] = []  # threads


def lacks(case: Case) -> str | None:
    """Return None, or why a case is not written for JAX."""
    if case.option not in ("none", "reset_before"):
        return "it is measured without options"
    if case.recurrence == "block":
        return "it is measured with dense and diagonal recurrences alone"
    try:
        trace(case.built()[0], torch.float32)
    except UnfusableError as error:
        return one_line(error)
    return None


def build(module: Any, workload: Workload) -> Program:
    """Return the compiled passes: all input projections in one product, then a scan over the cell's step.

    Weights are stored as JAX's own layers have them, input by output.

    Raises:
        RecurlabError: if JAX has started with another number of threads in this process.
    """
    device = _start(module, torch.get_num_threads())
    ours, jit = workload.layer("eager"), module.jit
    given = dict(ours.layer.named_parameters())

    def put(tensor: Tensor) -> Any:
        return module.device_put(tensor.detach().t().contiguous().numpy(), device)

    weights = {name: put(given[name]) for name in WEIGHTS}
    x = module.device_put(ours.input.numpy(), device)
    scan = _Scan(module, workload.case, workload.shape.hidden)
    # What it is differentiated by: the weights, and where it is asked for the input.
    wanted = (0, 1) if workload.settings.input_grad else (0,)
    forward, both = jit(scan.run), jit(partial(scan.with_gradients, wanted))
    cotangent = module.device_put(torch.randn(*x.shape[:2], workload.shape.hidden).numpy(), device)
    timed: dict[str, Pass] = {
        "forward": lambda: module.block_until_ready(forward(weights, x)),
        "both": lambda: module.block_until_ready(both(weights, x, cotangent)),
    }
    if workload.settings.step and workload.case.steps:
        timed["step"] = _stepping(module, jit(scan.one), weights, x[0], scan.zeros(x[0]))

    def results(cotangent: Tensor) -> dict[str, Tensor]:
        every = jit(partial(scan.with_gradients, (0, 1)))
        output, (d_weights, d_x) = every(weights, x, module.device_put(cotangent.numpy(), device))
        found = {name: _tensor(value).t() for name, value in d_weights.items()} | {"input": _tensor(d_x)}
        return {"output": _tensor(output), **{f"gradient of {name}": value for name, value in found.items()}}

    return Program(timed, results)


def _start(module: Any, threads: int) -> Any:
    """Return the CPU; JAX is bound to as many cores as `threads` when it starts, as its threads inherit that."""
    if not _started_with:
        here = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, sorted(here)[:threads])
            module.devices("cpu")
        finally:
            os.sched_setaffinity(0, here)
        _started_with.append(threads)
    if _started_with[0] != threads:
        raise RecurlabError(
            f"threads={threads}: JAX has started with {_started_with[0]} in this process and keeps them"
        )
    return module.devices("cpu")[0]


def _stepping(module: Any, one: Any, weights: Values, row: Any, state: Any) -> Pass:
    def step() -> Any:
        nonlocal state
        state = module.block_until_ready(one(weights, row, state))
        return state[0]

    return step


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


class _Scan:
    """A layer as functions of its weights (those of `WEIGHTS`, transposed) and its input (T, B, I)."""

    def __init__(self, module: Any, case: Case, units: int) -> None:
        self.jax, self.numpy, self.units = module, module.numpy, units
        self.recurrence = case.recurrence
        self.step = trace(case.built()[0], torch.float32)
        self.cell = self.step.cell

    def zeros(self, row: Any) -> tuple[Any, ...]:
        """Return the states before the first step, (B, H) each."""
        return tuple(self.numpy.zeros((row.shape[0], self.units), row.dtype) for _ in self.cell.states)

    def run(self, weights: Values, x: Any) -> tuple[Any, Any]:
        """Return the output (T, B, H) and the states after the sequence."""
        advance = self._advance(weights)
        ends, output = self.jax.lax.scan(advance, self.zeros(x[0]), x @ weights["weight_ih_l0"] + weights["bias_ih_l0"])
        return output, ends

    def one(self, weights: Values, row: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the states after one step, for its input (B, I)."""
        projected = row @ weights["weight_ih_l0"] + weights["bias_ih_l0"]
        after: tuple[Any, ...] = self._advance(weights)(states, projected)[0]
        return after

    def with_gradients(self, wanted: tuple[int, ...], weights: Values, x: Any, cotangent: Any) -> tuple[Any, Any]:
        """Return the output and the gradients of the arguments `wanted`, which are 0 for the weights, 1 for x."""
        given = (weights, x)

        def output(*some: Any) -> Any:
            every = dict(enumerate(given)) | dict(zip(wanted, some, strict=True))
            return self.run(every[0], every[1])[0]

        found, pull = self.jax.vjp(output, *(given[place] for place in wanted))
        return found, pull(cotangent)

    def _advance(self, weights: Values) -> Callable[..., Any]:
        gates, names = self.cell.gates, self.cell.states
        phases = [(phase, self._product(weights, phase)) for phase in self.cell.phases]

        def advance(states: tuple[Any, ...], projected: Any) -> tuple[tuple[Any, ...], Any]:
            values = {f"x.{gate}": part for gate, part in zip(gates, self._parts(projected, len(gates)), strict=True)}
            values |= {f"state.{name}": state for name, state in zip(names, states, strict=True)}
            known: dict[Node, Any] = {}
            for (phase, product), operand in zip(phases, self.step.operands, strict=True):
                results = product(self._value(operand, values, known))
                values |= {f"recur.{gate}": part for gate, part in zip(phase, results, strict=True)}
            after = tuple(self._value(node, values, known) for node in self.step.states)
            return after, after[0]

        return advance

    def _product(self, weights: Values, phase: tuple[str, ...]) -> Callable[[Any], list[Any]]:
        """Return the recurrence of a phase's gates: (B, H) to (B, H) for each."""
        places = [self.cell.gates.index(gate) for gate in phase]

        def picked(name: str) -> list[Any]:
            parts = self._parts(weights[name], len(self.cell.gates))
            return [parts[place] for place in places]

        scales, shifts = picked("weight_hh_l0"), picked("bias_hh_l0")
        if self.recurrence == "diagonal":
            return lambda h: [scale * h + shift for scale, shift in zip(scales, shifts, strict=True)]
        matrix, vector = (self.numpy.concatenate(parts, axis=-1) for parts in (scales, shifts))
        return lambda h: self._parts(h @ matrix + vector, len(phase))

    def _parts(self, array: Any, count: int) -> list[Any]:
        parts: list[Any] = self.numpy.split(array, count, axis=-1)
        return parts

    def _value(self, node: Node, values: Values, known: dict[Node, Any]) -> Any:
        """Return the value of an expression; each is computed once a step."""
        if node.op == "input":
            return values[node.args[0]]
        if node.op == "constant":
            return node.args[0]
        if node not in known:
            arguments = [self._value(arg, values, known) for arg in node.args]
            # jnp.maximum has a gradient of a half where both are equal, which costs operations.
            relu = node.op == "maximum" and node.args[1].op == "constant" and node.args[1].args[0] == 0
            known[node] = self.jax.nn.relu(arguments[0]) if relu else self._operation(node.op)(*arguments)
        return known[node]

    def _operation(self, name: str) -> Callable[..., Any]:
        if name in OPERATORS:
            return OPERATORS[name]
        own = {"sigmoid": self.jax.nn.sigmoid, "erf": self.jax.lax.erf, "pow": self.numpy.power}
        return own[name] if name in own else getattr(self.numpy, name)  # type: ignore[no-any-return]
