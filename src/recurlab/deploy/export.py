"""From a layer or a model to a file that runs without this package."""

import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from recurlab.cells.cell import State
from recurlab.deploy import LAYER_INPUTS, MODEL_INPUTS, check_graph_file, check_inputs
from recurlab.errors import RecurlabError, one_line
from recurlab.files import write_bytes
from recurlab.layers.rnn import RNN
from recurlab.models.sequence_model import SequenceModel

STEPS, BATCH = 3, 2  # of what is traced; at 0 and 1 torch would take a size for a constant


def export(module: RNN | SequenceModel, path: str | Path, inputs: Iterable[str] = ()) -> str:
    """Write a layer or a model as a graph that runs without recurlab, as it computes in evaluation; T and B stay open.

    What has an operator in ONNX becomes that: a dense GRU (either reset), LSTM, tanh or ReLU RNN of
    the usual activations in float32, with or without lengths. Any other layer is a Scan of its
    step.

    Args:
        module: a layer, or a model as `recurlab.load_run` returns it. A module that holds layers
            among others can be given to `torch.export.export` or `torch.onnx.export(dynamo=True)`
            itself.
        path: .onnx, or .pt2 for `torch.export.load`; a file that is there is replaced in one piece.
        inputs: what the graph takes beside the sequence, of hx, lengths (int64, (B,)), mask (of a
            layer only) and resets, shaped as those of `forward`. A stateful module always takes hx,
            as a graph remembers nothing; that of a model is the states of all its layers, (layers *
            directions, B, H).

    Returns:
        What was written, in a line: the names and shapes of the graph's inputs and outputs. In ONNX
        hx is an input for each state of the cell, as h_0 and c_0, and the state after the sequence
        is h_n and c_n. A .pt2 is called as the layer is: the sequence, then the others by their
        names. It returns the output, and with a layer or hx also the state.

    Raises:
        RecurlabError: for a module, file or input of another kind, a missing package, or a step
            that can't be exported.
    """
    file = check_graph_file(path)
    names = check_inputs(inputs, _inputs_of(module))
    graph = _Graph(module)
    if any(layer.stateful for layer in graph.layers) and "hx" not in names:
        names = ("hx", *names)
    example = _Example.of(graph, names)
    with _quiet(), _frozen(module), torch.no_grad():
        try:
            content = (_onnx if file.suffix.lower() == ".onnx" else _pt2)(graph, example)
        except Exception as error:  # what an exporter raises is of many kinds
            raise _refusal(file, error) from error
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)
    except OSError as error:
        raise RecurlabError(f"file={str(path)!r}: can't be written: {error.strerror}") from error
    return f"{path}: {example} -> {', '.join(example.outputs)}"


def _inputs_of(module: object) -> tuple[str, ...]:
    if isinstance(module, RNN | SequenceModel):
        return LAYER_INPUTS if isinstance(module, RNN) else MODEL_INPUTS
    kinds = "a recurlab.RNN or the model of a run"
    raise RecurlabError(f"module={type(module).__name__}: must be {kinds}; torch.export takes one that holds layers")


class _Graph(nn.Module):
    """A layer or a model as a function, whose state is an input and an output."""

    def __init__(self, module: RNN | SequenceModel) -> None:
        super().__init__()
        self.module = module
        self.layers = tuple(each for each in module.modules() if isinstance(each, RNN))
        self.counts = [layer.num_layers * layer.num_directions for layer in self.layers]

    def forward(
        self,
        input: Tensor,
        hx: Tensor | State | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Any:
        given = {"lengths": lengths, "mask": mask, "resets": resets}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}
        if hx is None:
            return self.module(input, **given)
        usual = [(layer.stateful, layer.carried_state) for layer in self.layers]
        states = zip(*(torch.split(s, self.counts) for s in ((hx,) if isinstance(hx, Tensor) else hx)), strict=True)
        try:
            for layer, state in zip(self.layers, states, strict=True):
                layer.stateful, layer.carried_state = True, state
            result = self.module(input, **given)
            ends = [layer.carried_state for layer in self.layers]
        finally:
            for layer, (stateful, carried) in zip(self.layers, usual, strict=True):
                layer.stateful, layer.carried_state = stateful, carried
        final = tuple(torch.cat(parts) for parts in zip(*(end for end in ends if end is not None), strict=True))
        return result[0] if isinstance(self.module, RNN) else result, final if len(final) > 1 else final[0]


@dataclass(frozen=True)
class _Example:
    """What a graph is traced with.

    Attributes:
        input: the sequence.
        others: the other arguments.
        dims: which sizes stay open, argument by argument.
        inputs, outputs: the names of all tensors.
    """

    input: Tensor
    others: dict[str, Any]
    dims: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, graph: _Graph, names: tuple[str, ...]) -> "_Example":
        module, layer = graph.module, graph.layers[0]
        weight, states = next(layer.parameters()), layer.cell.states
        ends = tuple(f"{state}_n" for state in states)
        first = isinstance(module, SequenceModel) or module.batch_first
        sizes = (BATCH, STEPS) if first else (STEPS, BATCH)
        axes = dict(enumerate((Dim("B"), Dim("T")) if first else (Dim("T"), Dim("B"))))
        if isinstance(module, SequenceModel) and module.encoder.symbols:
            x = torch.zeros(sizes, dtype=torch.int64, device=weight.device)
        else:
            x = weight.new_zeros(*sizes, module.input_size)
        hx = tuple(weight.new_zeros(sum(graph.counts), BATCH, layer.hidden_size) for _ in states)
        flags = torch.zeros(sizes, dtype=torch.bool, device=weight.device)
        every = {
            "hx": (hx if len(hx) > 1 else hx[0], ({1: Dim("B")},) * len(hx) if len(hx) > 1 else {1: Dim("B")}),
            "lengths": (torch.full((BATCH,), STEPS), {0: Dim("B")}),
            "mask": (flags, axes),
            "resets": (flags.clone(), axes),
        }
        starts = tuple(f"{state}_0" for state in states)
        inputs = ("input", *(each for name in names for each in (starts if name == "hx" else (name,))))
        outputs = ("output", *(ends if isinstance(module, RNN) or "hx" in names else ()))
        others = {name: every[name][0] for name in names}
        return cls(x, others, {"input": axes, **{name: every[name][1] for name in names}}, inputs, outputs)

    def __str__(self) -> str:
        tensors, dims = [self.input], [self.dims["input"]]
        for name, value in self.others.items():
            tensors += value if isinstance(value, tuple) else [value]
            dims += self.dims[name] if isinstance(value, tuple) else [self.dims[name]]
        shapes = [
            ", ".join(open_[axis].__name__ if axis in open_ else str(size) for axis, size in enumerate(tensor.shape))
            for tensor, open_ in zip(tensors, dims, strict=True)
        ]
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors]
        each = zip(self.inputs, shapes, kinds, strict=True)
        return ", ".join(f"{name} ({shape}) {kind}" for name, shape, kind in each)


def _pt2(graph: _Graph, example: _Example) -> bytes:
    program = torch.export.export(graph, (example.input,), example.others, dynamic_shapes=example.dims)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the folders of this machine
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _onnx(graph: _Graph, example: _Example) -> bytes:
    from onnxscript.optimizer import optimize

    program = torch.onnx.export(
        graph,
        (example.input,),
        kwargs=example.others,
        dynamo=True,
        dynamic_shapes=example.dims,
        input_names=example.inputs,
        output_names=example.outputs,
        verbose=False,
    )
    assert program is not None
    # Not only small weights are brought into the order of ONNX here and now.
    optimize(program.model, input_size_limit=sys.maxsize, output_size_limit=sys.maxsize)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the folders of this machine
    content: bytes = program.model_proto.SerializeToString()
    return content


def _refusal(file: Path, error: Exception) -> RecurlabError:
    """Return the error in one line: its first cause, or an error of this package among its causes."""
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, RecurlabError):
        cause = cause.__cause__
    if isinstance(cause, RecurlabError):
        return cause
    said = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return RecurlabError(f"file={str(file)!r}: this model can't be exported: {one_line(said):.300}")


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation, with weights that need no gradient: a .pt2 would keep that they do."""
    modes = {each: each.training for each in module.modules()}
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training
        for weight in weights:
            weight.requires_grad_()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters from telling of their own affairs, and from printing a graph where they fail."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "torch._export", "torch.fx")]
    usual = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, usual, strict=True):
            log.setLevel(level)
