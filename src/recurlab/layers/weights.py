"""The parameters of a recurrent layer: names, shapes, initial values, constraints and penalties."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from recurlab.cells.cell import Cell
from recurlab.cells.layer_norm import LayerNorm
from recurlab.cells.recurrence import Recurrence
from recurlab.errors import RecurlabError, check_integer
from recurlab.layers.options import ARGUMENTS, Weights
from recurlab.layers.start import KINDS, by_gate, start_weights

OLD_EXPORTER = (
    "torch.onnx.export(dynamo=False): can't write a recurrent layer; "
    "torch.onnx.export(dynamo=True) can, and so can recurlab.export, which keeps T and B open"
)
HOOK = "computed by a hook"
Rules = Weights  # its former name, in layers that were pickled as a whole
COMPUTING = (BasePruningMethod, SpectralNorm, WeightNorm)  # hooks of torch that compute a weight before each call


class RecurrentWeights(nn.Module):
    """The weights of all layers and directions, named as torch names them: ``weight_ih_l0``, ``bias_hh_l1_reverse``.

    Args:
        input_size, hidden_size, num_layers, bias, bidirectional, cell, recurrence, layer_norm,
            gate_bias, device, dtype: as `recurlab.RNN`.
        weights: a `Weights` for each of the arguments input_weights, recurrent_weights and biases.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        cell: Cell,
        recurrence: Recurrence,
        layer_norm: bool | str,
        weights: Mapping[str, Weights],
        gate_bias: Mapping[str, float],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        for key, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
            check_integer(key, size)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.bidirectional, self.cell, self.recurrence = bias, bidirectional, cell, recurrence
        self.layer_norm = layer_norm
        self._rules = {kind: weights[argument] for kind, argument in ARGUMENTS.items()}
        self._gate_bias = dict(gate_bias)
        gates = len(cell.gates)
        rows = gates * hidden_size
        for layer, suffix in self._suffixes():
            features = input_size if layer == 0 else hidden_size * self.num_directions
            shapes = {"weight_ih": (rows, features), "weight_hh": recurrence.weight_shape(gates, hidden_size)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            shapes |= {name: (hidden_size if name.endswith("state") else rows,) for name in self._norm_names()}
            for name, shape in shapes.items():
                setattr(self, name + suffix, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew; by default, with the same seed, the numbers that torch's layers draw.

        Raises:
            RecurlabError: for a weight that a hook computes from others.
        """
        for name in self._names():
            if self._how_computed(name) == HOOK:
                raise RecurlabError(f"{name}: it is {HOOK}, and not free to be drawn anew; take the hook off")
        for layer, suffix in self._suffixes():
            last = layer == self.num_layers - 1
            weights = {name: getattr(self, name + suffix) for name in self._weight_names()}
            inits = {k: own.last_init if last and own.last_init else own.init for k, own in self._rules.items()}
            start_weights(weights, self.cell, self.recurrence, inits, self._gate_bias)
            weights |= {n: getattr(self, n + suffix).fill_(n.startswith("gain")) for n in self._norm_names()}
            for name, weight in weights.items():
                if parametrize.is_parametrized(self, name + suffix):  # assigned, as it is computed from others
                    setattr(self, name + suffix, weight)
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Apply the constraints; to be called after each step of the optimiser.

        Raises:
            RecurlabError: for a constraint of a weight that `torch.nn.utils.parametrize` or a hook
                computes from others.
        """
        for name, kind in self._kinds():
            constraint = self._rules[kind].constraint
            if constraint is None:
                continue
            if (how := self._how_computed(name)) is not None:
                raise RecurlabError(f"{kind}_constraint={constraint}: {name} is {how}, and not free to be changed")
            constraint(getattr(self, name))

    def weights(self) -> dict[str, Tensor]:
        """Return all weights by name, as the layer uses them: also those that pruning or parametrizations compute."""
        for hook in self._forward_pre_hooks.values():
            if isinstance(hook, COMPUTING):
                hook(self, ())
        return {name: getattr(self, name) for name in self._names()}

    def penalty(self) -> Tensor:
        """Return what the regularisers of the weights add to the loss, ()."""
        total = next(self.parameters()).new_zeros(())
        for name, kind in self._kinds():
            regularizer = self._rules[kind].regularizer
            if regularizer is not None:
                total = total + regularizer(by_gate(getattr(self, name), kind, len(self.cell.gates), self.recurrence))
        return total

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:  # called while torch.jit is tracing
        if torch.onnx.is_in_onnx_export():
            raise RecurlabError(OLD_EXPORTER)
        return super()._slow_forward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _suffixes(self) -> Iterator[tuple[int, str]]:
        for layer in range(self.num_layers):
            for direction in ("", "_reverse")[: self.num_directions]:
                yield layer, f"_l{layer}{direction}"

    def _names(self) -> list[str]:
        """Return all weights' names."""
        names = (*self._weight_names(), *self._norm_names())
        return [name + suffix for _, suffix in self._suffixes() for name in names]

    def _how_computed(self, name: str) -> str | None:
        """Return None for a parameter, or how a weight is computed from others."""
        if name in self._parameters:
            return None
        return "parametrized" if parametrize.is_parametrized(self, name) else HOOK

    def _weight_names(self) -> tuple[str, ...]:
        return tuple(KINDS) if self.bias else ("weight_ih", "weight_hh")

    def _norm_names(self) -> tuple[str, ...]:
        """Return the fields of `LayerNorm` that this layer has."""
        if not self.layer_norm:
            return ()
        if self.layer_norm == "input":
            return ("gain_ih",)
        states = ("gain_state", "bias_state") if self.bias else ("gain_state",)
        return ("gain_ih", "gain_hh", *(states if self.cell.normalizes else ()))

    def _norm_of(self, suffix: str) -> LayerNorm | None:
        if not self.layer_norm:
            return None
        return LayerNorm(
            gain_ih=getattr(self, "gain_ih" + suffix),
            gain_hh=getattr(self, "gain_hh" + suffix, None),
            gain_state=getattr(self, "gain_state" + suffix, None),
            bias_state=getattr(self, "bias_state" + suffix, None),
            kind=self.layer_norm if isinstance(self.layer_norm, str) else "all",
        )

    def _kinds(self) -> Iterator[tuple[str, str]]:
        """Iterate over all weights: the name, and the kind (input, recurrent or bias)."""
        return ((name + suffix, KINDS[name]) for _, suffix in self._suffixes() for name in self._weight_names())
