"""Whether a candidate computes what the eager backend does; a speed is worth nothing without it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recurlab.backends import BACKENDS
from recurlab.bench.layers import Candidate, LayerCall, prepare_layer, shortened, small
from recurlab.bench.machine import tf32
from recurlab.bench.others import PEERS, program_of
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.errors import RecurlabError

# The largest difference allowed, as a part of the tensor's largest magnitude. In half precision and
# in TF32, backends may round what enters the step at different points, and where that turns a ReLU
# a whole term of a gradient goes: there the float32 layer is held to its own limit first, and
# ROUNDED finds what is lost on the way from and to half tensors.
TOLERANCES = {"float64": 1e-10, "float32": 2e-5}
ROUNDED = 0.3


@dataclass(frozen=True)
class Gap:
    """The largest relative difference to the eager backend, its tensor, and its limit."""

    size: float = float("nan")
    tensor: str = ""
    allowed: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether it is small enough."""
        return self.size <= self.allowed


def check_parity(candidate: Candidate, shape: Shape, settings: BenchSettings) -> Gap | None:
    """Return a candidate's gap to eager; below float32, its float32 layer's if that fails.

    None: it is another package with weights of its own, whose numbers are its own affair.

    Raises:
        RecurlabError: if the candidate's backend does not serve the shape.
    """
    half = settings.dtype in ("float16", "bfloat16")
    if half or (settings.tf32 and settings.dtype == "float32"):
        # On a GPU the shape would have float32 kernels of its own, to be compiled for this alone.
        size = shape if settings.device == "cpu" else small(candidate.case)
        try:
            wide = check_parity(candidate, size, replace(settings, dtype="float32", tf32=False)) or Gap(0)
        except RecurlabError:
            wide = Gap(0)  # its float32 kernels have no room for the shape; those asked for may
        if not wide.fits:
            return wide
        allowed = ROUNDED
    else:
        allowed = TOLERANCES[settings.dtype]
    with tf32(settings.tf32):
        found = difference(candidate, shape, settings)
    return None if found is None else Gap(*found, allowed)


def difference(candidate: Candidate, shape: Shape, settings: BenchSettings) -> tuple[float, str] | None:
    """Return the largest relative difference to the eager backend, and of what; None where nothing is compared.

    Outputs, final states and the gradients of the input, the initial states and all parameters are
    compared, on a small odd shape and on the widths of `shape`; of another package's layer what it
    has of the output and the gradients, from a state of zero.
    """
    worst = (0.0, "nothing")
    alike = candidate.backend in BACKENDS or PEERS[candidate.backend].alike
    for size in (small(candidate.case), shortened(shape)):
        pair = (_alike if alike else _beside)(candidate, size, settings)
        if pair is None:
            return None
        found, wanted = pair
        for name, tensor in found.items():
            gap = _gap(tensor, wanted[name])
            if gap > worst[0]:
                worst = gap, name
    return worst


Named = dict[str, Tensor]


def _alike(candidate: Candidate, size: Shape, settings: BenchSettings) -> tuple[Named, Named]:
    """Return the numbers of a layer that is called as ours is, and those of the eager backend."""
    found, wanted = (
        _everything(prepare_layer(who, size, settings, seed=1), size)
        for who in (candidate, Candidate(candidate.case, "eager"))
    )
    return found, wanted


def _beside(candidate: Candidate, size: Shape, settings: BenchSettings) -> tuple[Named, Named] | None:
    """Return the numbers of another package's layer, None without any, and those of the eager backend."""
    program = program_of(candidate, size, replace(settings, step=False), seed=1)
    if program.results is None:
        return None
    work = prepare_layer(Candidate(candidate.case, "eager"), size, settings, seed=1)
    x = work.input.clone().requires_grad_()
    output = work.call(x)[0]
    cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output)
    leaves = {"input": x} | dict(work.layer.named_parameters())
    gradients = torch.autograd.grad(output, list(leaves.values()), cotangent)
    wanted = {f"gradient of {name}": tensor for name, tensor in zip(leaves, gradients, strict=True)}
    return program.results(cotangent), {"output": output.detach(), **wanted}


def _gap(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape or not all(torch.isfinite(tensor).all() for tensor in (found, wanted)):
        return float("inf")
    largest = wanted.double().abs().max().item()
    return (found.double() - wanted.double()).abs().max().item() / (largest or 1.0)


def _everything(work: LayerCall, shape: Shape) -> dict[str, Tensor]:
    """Return all that a layer computes in a forward and a backward pass, by name."""
    generator = torch.Generator().manual_seed(2)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).to(work.input)

    directions = 2 if getattr(work.layer, "bidirectional", False) else 1
    states = _states(work)
    start = tuple(draw(directions, shape.batch, shape.hidden).requires_grad_() for _ in range(states))
    x = work.input.clone().requires_grad_()
    with torch.random.fork_rng([0] if x.is_cuda else []):
        torch.manual_seed(3)  # both draw the same noise
        output, end = work.call(x, start if states > 1 else start[0], **work.extra)
    ends = end if isinstance(end, tuple) else (end,)
    results = [output, *ends]
    torch.autograd.backward(results, [draw(*result.shape) for result in results])
    leaves = {"input": x} | {f"state {index}": s for index, s in enumerate(start)} | dict(work.layer.named_parameters())
    gradients = {
        f"gradient of {name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }
    values = {"output": output, **{f"final state {index}": s for index, s in enumerate(ends)}}
    return {name: tensor.detach() for name, tensor in (values | gradients).items()}


def _states(work: LayerCall) -> int:
    cell = getattr(work.layer, "cell", None)
    return len(cell.states) if cell is not None else 1 + isinstance(work.layer, torch.nn.LSTM)
