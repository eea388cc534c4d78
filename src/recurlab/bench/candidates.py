"""From the settings to the layers that are compared: the cases, and the backends that run them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recurlab.backends import BACKENDS, select
from recurlab.backends.call import Call
from recurlab.bench.settings import OPTIONS, BenchSettings, Shape
from recurlab.cells.build import build_cell
from recurlab.cells.cell import Cell
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.recurrence import Recurrence
from recurlab.cells.rnn import Elman
from recurlab.errors import RecurlabError
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

    def built(self) -> tuple[Cell, Recurrence]:
        """Return the cell and its recurrence."""
        options = {"reset": "before"} if self.option == "reset_before" else {}
        return build_cell(self.cell, self.recurrence, self.heads, options)


@dataclass(frozen=True)
class Candidate:
    """A case and who runs it: a backend's name, torch or compile."""

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
    """

    layer: nn.Module
    call: Any
    input: Tensor
    extra: dict[str, Tensor]


def cases(settings: BenchSettings) -> list[Case]:
    """Return all cases; an option that a cell does not have makes none.

    Raises:
        RecurlabError: if an option suits no cell, or the heads divide no hidden size.
    """
    if "reset_before" in settings.options and not any(_resets_after(cell) for cell in settings.cells):
        cells = ", ".join(settings.cells)
        raise RecurlabError(f"options='reset_before': none of the cells {cells} resets after its recurrence")
    found = [
        _case(cell, recurrence, option, settings)
        for cell in settings.cells
        for recurrence in settings.recurrences or ("",)
        for option in dict.fromkeys(("none", *settings.options))
        if option != "reset_before" or _resets_after(cell)
    ]
    for case in found:
        made, recurrence = case.built()
        for shape in settings.shapes:
            recurrence.weight_shape(len(made.gates), shape.hidden)
    return found


def _case(cell: str, recurrence: str, option: str, settings: BenchSettings) -> Case:
    heads = settings.heads if recurrence == "block" else 1
    default = build_cell(cell, recurrence or None, heads, {})[1].kind
    return Case(cell, default, heads, option)


def _resets_after(cell: str) -> bool:
    return getattr(build_cell(cell, None, 1, {})[0], "reset", None) == "after"


def reference(case: Case) -> Candidate:
    """Return torch's layer that a case is compared with: LSTM for an LSTM, GRU for all else."""
    cell = "lstm" if isinstance(case.built()[0], LSTM) else "gru"
    return Candidate(Case(cell, "dense", 1, "bidirectional" if case.option == "bidirectional" else "none"), "torch")


def candidates(settings: BenchSettings, *, beside: bool = True) -> tuple[list[Candidate], dict[Candidate, str]]:
    """Return the candidates, and the reasons against others; `beside`: references too."""
    every = cases(settings)
    found: list[Candidate] = []
    refused: dict[Candidate, str] = {}
    for candidate in (Candidate(case, name) for case in every for name in settings.backends or ("torch", *BACKENDS)):
        reason = _refusal(candidate, settings)
        if reason is None:
            found.append(candidate)
        else:
            refused[candidate] = reason
    missing = [reference(case) for case in every if beside and reference(case) not in found]
    return list(dict.fromkeys([*missing, *found])), refused


def _refusal(candidate: Candidate, settings: BenchSettings) -> str | None:
    """Return None, or why a candidate can't run its case."""
    backend = candidate.backend
    if backend == "torch":
        return None if torch_class(candidate.case) else "torch has no layer that computes this"
    if backend == "compile":
        return None
    work = prepare_layer(Candidate(candidate.case, "eager"), small(candidate.case), settings)
    reason: str | None = select.MODULES[backend].supports(call_of(work))
    return reason


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
    if candidate.backend == "torch" and layer_class is not None:
        theirs = _torch_layer(layer_class, ours, factory)
        return LayerCall(theirs, theirs, x, extra)
    return LayerCall(ours, _compiled(ours) if candidate.backend == "compile" else ours, x, extra)


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
