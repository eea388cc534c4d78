"""The layers that are compared, and who runs them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recurlab.backends import BACKENDS
from recurlab.backends.call import Call
from recurlab.bench.settings import OPTIONS, BenchSettings, Shape
from recurlab.cells.build import build_cell
from recurlab.cells.cell import Cell
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.recurrence import Recurrence
from recurlab.cells.rnn import Elman
from recurlab.layers.rnn import RNN
from recurlab.layers.sequence import arrange


@dataclass(frozen=True)
class Case:
    """What is computed: a cell with a recurrence and one option."""

    cell: str
    recurrence: str
    heads: int
    option: str

    def __str__(self) -> str:
        return " ".join([self.cell, self.recurrence, *([] if self.option == "none" else [self.option])])

    @property
    def steps(self) -> bool:
        """Whether it can be run step by step."""
        return self.option in ("none", "reset_before")

    @property
    def is_usual(self) -> bool:
        """Whether the recurrence is the cell's own."""
        return self.recurrence == build_cell(self.cell, None, 1, {})[1].kind

    def built(self) -> tuple[Cell, Recurrence]:
        """Return the cell and its recurrence."""
        options = {"reset": "before"} if self.option == "reset_before" else {}
        return build_cell(self.cell, self.recurrence, self.heads, options)


@dataclass(frozen=True)
class Candidate:
    """A case and who runs it: the name of a backend, or of another one in the module `others`."""

    case: Case
    backend: str

    def __str__(self) -> str:
        return f"{self.case} {self.backend}"


@dataclass(frozen=True)
class LayerCall:
    """A candidate's layer and its input: T steps, B samples, I features.

    Attributes:
        layer: holds the parameters.
        call: the layer, or what torch.compile made of it.
        input: (T, B, I).
        extra: further arguments of the call.
        step: runs one step of a sequence, from the state that its last call has left; None: not
            asked for, or the layer has none.
    """

    layer: nn.Module
    call: Any
    input: Tensor
    extra: dict[str, Tensor]
    step: Callable[[], Any] | None = None


def call_of(work: LayerCall) -> Call:
    """Return what a backend is asked to do for a layer of ours."""
    layer: RNN = work.layer  # type: ignore[assignment]
    sequence = arrange(
        work.input, layer.input_size, batch_first=False, lengths=None,
        mask=work.extra.get("mask"), resets=work.extra.get("resets"),
    )  # fmt: skip
    zeros = work.input.new_zeros(layer.num_directions, work.input.shape[1], layer.hidden_size)
    return layer.call_of(0, sequence.input, tuple(zeros for _ in layer.cell.states), sequence)


def small(case: Case) -> Shape:
    """Return a small shape whose sizes no vector and no block of a kernel divides."""
    return Shape(7, 3, 17 if case.heads == 1 else 3 * case.heads, 5)


def torch_class(case: Case) -> type[nn.RNNBase] | None:
    """Return torch's layer that computes the very same, or None."""
    cell, recurrence = case.built()
    if recurrence.kind != "dense" or case.option not in ("none", "bidirectional"):
        return None
    if isinstance(cell, Elman) and cell.activation in ("tanh", "relu"):
        return nn.RNN
    return nn.GRU if cell == GRU() else nn.LSTM if cell == LSTM() else None


def prepare_layer(candidate: Candidate, shape: Shape, settings: BenchSettings, seed: int = 0) -> LayerCall:
    """Return a candidate's layer and input; the same for the same seed on every backend."""
    factory: dict[str, Any] = {"device": settings.device, "dtype": getattr(torch, settings.dtype)}
    case, layer_class = candidate.case, torch_class(candidate.case)
    with torch.random.fork_rng([0] if settings.device == "cuda" else []):
        torch.manual_seed(seed)
        ours = RNN(
            shape.features, shape.hidden, **factory, cell=case.cell, recurrence=case.recurrence, heads=case.heads,
            backend=candidate.backend if candidate.backend in BACKENDS else "eager", **OPTIONS[case.option],
        )  # fmt: skip
        x = torch.randn(shape.steps, shape.batch, shape.features, **factory)
        lengths = torch.randint(1, shape.steps + 1, (shape.batch,), device=settings.device)
        boundaries = torch.rand(shape.steps, shape.batch, device=settings.device) < 2 / shape.steps
    mask = torch.arange(shape.steps, device=settings.device).unsqueeze(1) < lengths
    flags = {"mask": mask, "resets": boundaries}
    extra = {name: flag for name, flag in flags.items() if name == case.option}
    steps = settings.step and case.steps
    if candidate.backend == "torch" and layer_class is not None:
        theirs = _torch_layer(layer_class, ours, factory)
        return LayerCall(theirs, theirs, x, extra, _stepping(_torch_cell(theirs), x) if steps else None)
    if candidate.backend == "compile":
        return LayerCall(ours, _compiled(ours), x, extra)
    return LayerCall(ours, ours, x, extra, _stepping(ours.step, x) if steps else None)


def _stepping(step: Callable[..., Any], x: Tensor) -> Callable[[], Any]:
    """Return a function that makes one step for an agent or a stream: the state goes from call to call."""
    row, state = x[0].clone(), None

    def run() -> Any:
        nonlocal state
        with torch.no_grad():
            output, state = step(row, state)
        return output

    return run


def _torch_cell(layer: nn.RNNBase) -> Callable[..., Any]:
    """Return the step of torch's cell with the weights of its layer."""
    classes: dict[type[nn.RNNBase], Any] = {nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell, nn.RNN: nn.RNNCell}
    options = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
    weight = layer.weight_ih_l0
    cell = classes[type(layer)](
        layer.input_size, layer.hidden_size, device=weight.device, dtype=weight.dtype, **options
    )
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = cell(x, state)
        return (state[0] if isinstance(state, tuple) else state), state

    return step


def has_projection(work: LayerCall) -> bool:
    """Return whether a layer's input weights are named as ours."""
    return any(name.startswith("weight_ih") for name, _ in work.layer.named_parameters())


def projection(work: LayerCall) -> LayerCall:
    """Return the products of the input with the input weights alone, as a call of its own."""
    weights = [w.detach() for name, w in work.layer.named_parameters() if name.startswith("weight_ih")]
    weight = nn.Parameter(torch.cat(weights))  # of both directions
    return LayerCall(nn.ParameterList([weight]), lambda x: (F.linear(x, weight),), work.input, {})


def _compiled(layer: RNN) -> Any:
    from torch._dynamo import config  # slow to import

    # Each layer and shape is a compilation of its own; and one graph or an error, else the loop
    # could run uncompiled in part, unseen.
    config.recompile_limit = config.accumulated_recompile_limit = 100_000
    # The noise of torch's own generator, else no mask that is drawn could be compared.
    return torch.compile(layer, fullgraph=True, dynamic=False, options={"fallback_random": True})


def _torch_layer(layer_class: type[nn.RNNBase], ours: RNN, factory: dict[str, Any]) -> nn.RNNBase:
    make: Any = layer_class
    options = {"nonlinearity": getattr(ours.cell, "activation", "")} if layer_class is nn.RNN else {}
    theirs: nn.RNNBase = make(ours.input_size, ours.hidden_size, bidirectional=ours.bidirectional, **factory, **options)
    theirs.load_state_dict(ours.state_dict())
    return theirs


def shortened(shape: Shape) -> Shape:
    """Return a shape with the widths of `shape`, which choose a kernel's path, and few steps."""
    return replace(shape, steps=min(shape.steps, 3))
