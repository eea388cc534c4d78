"""Calls that go straight to the compiled functions of a CPU: what they would find out anew each time is known."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recurlab.backends import select
from recurlab.backends.call import transformed
from recurlab.cells.cell import State
from recurlab.errors import RecurlabError
from recurlab.fuse.arguments import Arguments, Setting
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cpu.kernel import CpuKernel
from recurlab.fuse.cpu.step import Stepper
from recurlab.fuse.observers import observed
from recurlab.fuse.registry import STORAGES, kernel
from recurlab.fuse.scan import scan_unseen
from recurlab.layers.carried import CarryingLayer
from recurlab.layers.regularizers import Regularizer
from recurlab.layers.start import KINDS

ENDLESS = ("bidirectional", "go_backwards")  # options that need whole sequences
Key = tuple[object, ...]


@dataclass(frozen=True)
class Direct:
    """What the calls of a layer have in common as long as its weights stay where they are.

    Attributes:
        made: the kernels of its cell.
        names: of each layer's weights, in the order of `KINDS`; there may be none of a bias.
        stepper: its compiled step.
        settings: of its sequences, by whether it trains and whether a gradient is kept.
    """

    made: CpuKernel
    names: list[list[str]]
    stepper: Stepper
    settings: dict[tuple[bool, bool], Setting]


def is_plain(tensor: object, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Return whether a compiled function can read a tensor as it lies, and nobody else has to see that."""
    if type(tensor) is not Tensor or tensor.shape != shape or tensor.dtype != dtype:
        return False
    return tensor.is_cpu and tensor.is_contiguous()


class DirectLayer(CarryingLayer):
    """A layer whose plain calls go straight to compiled functions; its attributes are those of `recurlab.RNN`."""

    go_backwards: bool
    batch_first: bool
    backend: str
    zoneout: tuple[float, ...]
    dropout: float
    recurrent_dropout: float
    dropconnect: float
    activity_regularizer: Regularizer | None
    backends_used: dict[int, str]
    _direct: tuple[Key, Direct | None] | None = None

    def _forward_direct(self, input: object, hx: object) -> tuple[Tensor, Tensor | State] | None:
        """Return what `forward` does with whole sequences, or None where that takes more, whatever the reason."""
        if self._is_seen() or type(input) is not Tensor or input.dim() != 3 or not input.is_cpu:
            return None
        if self.stateful or self.activity_regularizer is not None or self._is_noisy():
            return None
        x = input.transpose(0, 1) if self.batch_first else input
        steps, batch, features = x.shape
        start = self._start_direct(hx, x, batch)
        direct = self._direct_for(x.dtype)
        if features != self.input_size or steps == 0 or batch == 0 or start is None or direct is None:
            return None
        keep, training, ends = torch.is_grad_enabled(), self.training, []
        for layer, names in enumerate(direct.names):
            weights = [self._parameters.get(name) for name in names]
            begin = [state[layer : layer + 1] for state in start] if self.num_layers > 1 else start
            grad = keep and any(each is not None and each.requires_grad for each in (x, *weights, *begin))
            # x, weight_ih and weight_hh are there.
            x, end = scan_unseen(direct.made, Arguments(direct.settings[training, grad], begin, x, *weights))  # type: ignore[arg-type]
            ends.append(end)
        self._note_fused()
        final = ends[0] if len(ends) == 1 else tuple(torch.cat(layers) for layers in zip(*ends, strict=True))
        return x.transpose(0, 1) if self.batch_first else x, final if len(final) > 1 else final[0]

    def _start_direct(self, hx: object, x: Tensor, batch: int) -> list[Tensor] | None:
        """Return the states before a sequence, (num_layers, B, H) each, or None if those given are not just so."""
        shape = (self.num_layers, batch, self.hidden_size)
        if hx is None:
            return [x.new_zeros(*shape) for _ in self.cell.states]
        states = [hx] if isinstance(hx, Tensor) else list(hx) if isinstance(hx, tuple | list) else []
        fit = len(states) == len(self.cell.states) and all(is_plain(state, shape, x.dtype) for state in states)
        return states if fit else None

    def _is_seen(self) -> bool:
        """Return whether modes or transforms of torch are to see a call, or change it."""
        return observed() or torch.is_autocast_enabled("cpu") or transformed()

    def _is_noisy(self) -> bool:
        """Return whether a call draws masks, or adds to the penalty."""
        if not self.training:
            return False
        rates = (*self.zoneout, self.dropout, self.recurrent_dropout, self.dropconnect)
        return any(rates) or self.activity_regularizer is not None

    def _note_fused(self) -> None:
        if self.backends_used[0] != "fused":
            self.backends_used.update(dict.fromkeys(self.backends_used, "fused"))

    def _direct_for(self, dtype: torch.dtype) -> Direct | None:
        """Return what calls have in common with the weights as they are, or None where they can't be direct."""
        weights = [*self._parameters.values()]
        key = (self.backend, dtype, self.zoneout, *[weight.data_ptr() for weight in weights if weight is not None])
        if self._direct is None or self._direct[0] != key:
            self._direct = key, self._find_direct(dtype)
        return self._direct[1]

    def _find_direct(self, dtype: torch.dtype) -> Direct | None:
        names = self._names()
        if any(getattr(self, key) for key in ENDLESS) or self.layer_norm or set(names) != set(self._parameters):
            return None
        for weight in self._parameters.values():
            if type(weight) is not nn.Parameter or weight.dtype != dtype or not weight.is_contiguous():
                return None
            if not weight.is_cpu:
                return None
        # Of the backends that serve a CPU, "auto" takes the first.
        first = next(name for name in select.MODULES if name != "cudnn")
        if (first if self.backend == "auto" else self.backend) != "fused":
            return None
        if dtype not in STORAGES["cpu"] or compiler.unavailable() is not None:
            return None
        token, kind = self.cell.token, self.recurrence.kind
        try:
            made = kernel(token, kind, dtype, torch.device("cpu"))
        except RecurlabError:
            return None
        if not isinstance(made, CpuKernel):
            return None
        by_layer = [[name + suffix for name in KINDS] for _, suffix in self._suffixes()]
        weights = [[self._parameters.get(name) for name in layer] for layer in by_layer]
        flags = [(training, grad) for training in (False, True) for grad in (False, True)]
        settings = {each: Setting(token, kind, self.zoneout, False, *each) for each in flags}
        stepper = Stepper(made, weights, self.recurrence.fan_in(self.hidden_size), self.zoneout)
        return Direct(made, by_layer, stepper, settings)
