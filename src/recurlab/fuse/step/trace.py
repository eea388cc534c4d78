"""From a cell's step to expressions: the step itself, cut at its recurrences, and its gradient, piece by piece."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch._decomp import _core_aten_decompositions_post_autograd
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from recurlab.cells.cell import Cell
from recurlab.errors import RecurlabError, one_line
from recurlab.fuse.step.expressions import Expressions, Node
from recurlab.fuse.step.operations import OPERATIONS

NORMALIZE = "normalize"  # the name in `recur` of the normalisation of a state
SHAPE = (2, 3)  # of the values traced; nothing else in a step has this shape by chance


class UnfusableError(RecurlabError):
    """A step, or its gradient, does something that no kernel can be written for."""


@dataclass(frozen=True)
class Gradients:
    """What one piece of the step contributes to each gradient; absent where it contributes nothing.

    Attributes:
        x, recur: by gate, the gradient of the input projection and of the recurrence's result.
        states: by state, that of the state before the step.
    """

    x: dict[str, Node]
    recur: dict[str, Node]
    states: dict[str, Node]


@dataclass(frozen=True)
class Step:
    """A traced step. Its inputs are named ``x.<gate>``, ``recur.<gate>`` and ``state.<state>``.

    Attributes:
        cell: the cell traced.
        normalized: whether it is that of a layer with layer normalisation. A state that it
            normalises counts as one phase more, the last one, of one gate named `NORMALIZE`.
        phases: the gates of each phase.
        order: the phases in the order of the step.
        operands: for each phase, what its recurrences are applied to.
        states: the states after the step.
        operand_gradients: for each phase, the gradients due to its operand, that of the operand
            being ``d.operand``.
        state_gradients: those due to the new states, whose own are named ``d_state.<state>``.
        names: the local variables of the step's source.
    """

    cell: Cell
    normalized: bool
    phases: tuple[tuple[str, ...], ...]
    order: tuple[int, ...]
    operands: tuple[Node, ...]
    states: tuple[Node, ...]
    operand_gradients: tuple[Gradients, ...]
    state_gradients: Gradients
    names: dict[Node, str]

    @property
    def results(self) -> tuple[str, ...]:
        """The names of what `recur` gives: the gates, and `NORMALIZE` if that is a phase."""
        return (*self.cell.gates, NORMALIZE) if len(self.phases) > len(self.cell.phases) else self.cell.gates


def trace(cell: Cell, dtype: torch.dtype, norm: str = "") -> Step:
    """Return the cell's step as expressions.

    Args:
        cell: the cell.
        dtype: of the numbers.
        norm: the kind of layer normalisation, see `LayerNorm`; empty without it.

    Raises:
        UnfusableError: naming the operation, and the line of the cell's source, for which there is
            no kernel.
    """
    return _Tracer(cell, dtype, norm).step()


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return how torch's operations decompose.

    Not those that tracing takes apart by itself: collecting them takes longer than tracing a step.
    """
    return _core_aten_decompositions_post_autograd()


class _Tracer:
    def __init__(self, cell: Cell, dtype: torch.dtype, norm: str) -> None:
        self.cell, self.dtype, self.normalized = cell, dtype, bool(norm)
        self.make = Expressions()
        own = norm not in ("", "input") and cell.normalizes
        self.phases = (*cell.phases, (NORMALIZE,)) if own else cell.phases
        self.results = (*cell.gates, NORMALIZE) if own else cell.gates
        self.inputs = [f"{kind}.{name}" for kind, names in self._kinds().items() for name in names]

    def _kinds(self) -> dict[str, tuple[str, ...]]:
        return {"x": self.cell.gates, "recur": self.results, "state": self.cell.states}

    def step(self) -> Step:
        local: dict[str, int] = {}
        called: list[str] = []

        def forward(*inputs: Tensor) -> list[Tensor]:
            found: dict[str, Tensor] = {}
            with _locals_of(type(self.cell).step.__code__, found):
                results = [*self._operands_and_states(inputs, called)]
            local.update({name: index for index, name in enumerate(found, len(results))})
            return results + list(found.values())

        values = self._graph(forward, self.inputs)
        phases = len(self.phases)
        names = {values[index]: name for name, index in local.items() if values[index].op not in ("input", "constant")}
        return Step(
            self.cell,
            self.normalized,
            self.phases,
            tuple(sorted(range(phases), key=lambda k: min(called.index(gate) for gate in self.phases[k]))),
            tuple(values[:phases]),
            tuple(values[phases : phases + len(self.cell.states)]),
            tuple(self._gradients(slice(k, k + 1), ["d.operand"]) for k in range(phases)),
            self._gradients(slice(phases, None), [f"d_state.{name}" for name in self.cell.states]),
            names,
        )

    def _operands_and_states(self, inputs: tuple[Tensor, ...], called: list[str]) -> list[Tensor]:
        """Run the step on the inputs; return each phase's operand, then the new states; note what is `called`."""
        cell, free = self.cell, iter(inputs)
        x, given, state = ([next(free) for _ in names] for names in self._kinds().values())
        results = dict(zip(self.results, given, strict=True))
        operands: dict[str, Tensor] = {}

        def recur(gate: str, operand: Tensor) -> Tensor:
            operands[gate] = operand
            called.append(gate)
            return results[gate]

        recurrences = cell.recur_by_gate(*(partial(recur, gate) for gate in cell.gates))
        if NORMALIZE in results:
            recurrences.normalize = partial(recur, NORMALIZE)
        states = cell.advance(cell.by_gate(*x), tuple(state), recurrences)
        return [*(operands[phase[0]] for phase in self.phases), *states]

    def _gradients(self, wanted: slice, names: list[str]) -> Gradients:
        """Return the gradients of the inputs due to the outputs `wanted`, whose own gradients are called `names`."""
        size = len(self.inputs)

        def backward(*inputs: Tensor) -> tuple[Tensor, ...]:
            pull = torch.func.vjp(lambda *x: tuple(self._operands_and_states(x, [])[wanted]), *inputs[:size])[1]
            return tuple(pull(inputs[size:]))

        values = self._graph(backward, [*self.inputs, *names])
        given = {
            name: value
            for name, value in zip(self.inputs, values, strict=True)
            if not (value.is_constant and value.args[0] == 0)
        }
        return Gradients(
            *(
                {name: given[f"{kind}.{name}"] for name in names if f"{kind}.{name}" in given}
                for kind, names in self._kinds().items()
            )
        )

    def _graph(self, function: Callable[..., Any], names: list[str]) -> list[Node]:
        """Return the outputs of a function as expressions of its inputs, which are called `names`."""
        examples = [torch.zeros(SHAPE, dtype=self.dtype) for _ in names]
        try:
            with torch.autocast("cpu", enabled=False), torch.autograd.set_detect_anomaly(False):
                graph = make_fx(function, decomposition_table=_decompositions())(*examples)
        except Exception as error:  # whatever tracing fails at, the eager backend may still run
            raise UnfusableError(f"the step of {self._name()} can't be traced: {one_line(error)}") from error
        return self._read(graph, names)

    def _read(self, graph: GraphModule, names: list[str]) -> list[Node]:
        values: dict[Any, Node | None] = {}
        free = iter(names)

        def value(arg: Any) -> Any:
            return values[arg] if isinstance(arg, torch.fx.Node) else arg

        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = self.make.input(next(free))
            elif node.op == "get_attr":
                values[node] = self._captured(getattr(graph, node.target), node)
            elif node.op == "output":
                return [self._output(value(arg)) for arg in node.args[0]]
            else:
                name = node.target.overloadpacket.__name__.removesuffix("_")
                shape = tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else SHAPE
                if name not in OPERATIONS:
                    raise UnfusableError(f"{self._where(name)}: there is no kernel for torch's {name}")
                args = [value(arg) for arg in node.args]
                try:
                    made = OPERATIONS[name](self.make, *args, **{k: value(v) for k, v in node.kwargs.items()})
                except NotImplementedError as error:
                    raise UnfusableError(f"{self._where(name)}: {error}") from error
                if not made.is_constant and shape not in (SHAPE, ()):  # of numbers alone, a shape is ()
                    raise UnfusableError(f"{self._where(name)}: {name} gives shape {shape}, not that of the state")
                values[node] = made
        raise AssertionError("a traced graph ends with its output")

    def _output(self, value: Node | None) -> Node:
        return self.make.constant(0) if value is None else self.make.number(value)

    def _captured(self, tensor: Tensor, node: torch.fx.Node) -> Node:
        """Return a number written in the step; other tensors could change behind the kernel's back."""
        fresh = all("lift_fresh" in str(user.target) for user in node.users)
        if fresh and tensor.dim() == 0:
            return self.make.constant(tensor.item())
        raise UnfusableError(
            f"the step of {self._name()} uses a tensor {tuple(tensor.shape)} that is none of its arguments"
        )

    def _name(self) -> str:
        return f"cell {type(self.cell).__name__}"

    def _where(self, operation: str) -> str:
        """Return the cell's name and the line of its step that calls `operation`."""
        recorder = _Lines(type(self.cell).step.__code__)
        inputs = tuple(torch.zeros(SHAPE, dtype=self.dtype) for _ in self.inputs)
        with recorder:
            self._operands_and_states(inputs, [])
        code = recorder.code
        line = recorder.lines.get(operation)
        if line is None:  # it comes from the gradient or from a decomposition
            return f"{self._name()} ({code.co_filename}:{code.co_firstlineno})"
        try:
            lines, first = inspect.getsourcelines(code)
        except OSError:  # typed into an interpreter
            return f"{self._name()} ({code.co_filename}:{line})"
        return f"{self._name()} ({code.co_filename}:{line}: {lines[line - first].strip()})"


class _Lines(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes from which line of a function each operation is called."""

    def __init__(self, code: CodeType) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.code = code
        self.lines: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not self.code:
            frame = frame.f_back
        if frame is not None:
            self.lines.setdefault(func.overloadpacket.__name__, frame.f_lineno)
        return func(*args, **(kwargs or {}))


@contextmanager
def _locals_of(code: CodeType, found: dict[str, Tensor]) -> Iterator[None]:
    """Collect the tensors in local variables that a function holds when it returns."""

    def on_return(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            found.update({name: v for name, v in frame.f_locals.items() if isinstance(v, Tensor)})

    before = sys.getprofile()
    sys.setprofile(on_return)
    try:
        yield
    finally:
        sys.setprofile(before)
