"""What a backend is asked to do: one layer, over one sequence."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurlab.backends.constant import constant
from recurlab.backends.scan import running_maximum
from recurlab.cells.cell import Cell, State
from recurlab.cells.layer_norm import LayerNorm
from recurlab.cells.recurrence import Recurrence
from recurlab.errors import RecurlabError
from recurlab.fuse.packing import Packing

AUTOCAST = (torch.float32, torch.bfloat16, torch.float16)  # autocast casts these to one dtype


@dataclass(frozen=True)
class Direction:
    """The weights and noise of one direction of a layer; H units, G gates.

    Attributes:
        weight_ih: (G*H, I).
        weight_hh: of the recurrence's shape, DropConnect already applied.
        bias_ih, bias_hh: (G*H,) or None.
        state: the state before the sequence, (B, H) each.
        recurrent_dropout: factor (B, H) on the state where it enters the recurrence, or None.
        seed: int64, (), from which the masks of zoneout are computed; None where it draws nothing.
        norm: the gains of layer normalisation, or None without it.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    state: State
    recurrent_dropout: Tensor | None
    seed: Tensor | None
    norm: LayerNorm | None = None


@dataclass(frozen=True)
class Call:
    """One layer over one sequence: T steps, B samples, I features.

    Attributes:
        cell, recurrence: what is computed.
        input: (T, B, I); finite also where masked, but not where `packing` is given.
        directions: the forward direction and, in a bidirectional layer, the reverse one.
        given_mask: what `mask` is without a `packing`.
        resets: boolean (T, B), True where a boundary lies between a step and the one before it, or
            None; see `cuts`.
        zoneout: per state, the probability of keeping the previous value.
        hold: whether a skipped step repeats the last output instead of giving 0.
        training: whether drawn masks are used; otherwise their expectation is.
        lengths: int64 (B,) on the CPU, where the mask is right padding and the host knows its
            lengths, or None.
        packing: of these lengths, for a backend that does valid steps only; None where it is not
            known before the call runs, and where no such backend is on the input's device.
    """

    cell: Cell
    recurrence: Recurrence
    input: Tensor
    directions: tuple[Direction, ...]
    given_mask: Tensor | None
    resets: Tensor | None
    zoneout: tuple[float, ...]
    hold: bool
    training: bool
    lengths: Tensor | None = None
    packing: Packing | None = None

    @property
    def mask(self) -> Tensor | None:
        """Boolean (T, B), False where a step is skipped, or None; of a packed batch made when it is asked for."""
        return self.given_mask if self.packing is None else self.packing.mask

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the input's projection and of the output; autocast's where it is on."""
        device = self.input.device
        if autocasts(device) and self.input.dtype != torch.float64:
            return torch.get_autocast_dtype(device.type)
        return self.input.dtype

    def clean_input(self) -> Tensor:
        """Return the input, finite also where masked."""
        if self.packing is None:
            return self.input
        return self.input.masked_fill(~self.packing.mask.unsqueeze(-1), 0)

    def check(self) -> None:
        """Raise unless input, weights and states share dtype and device; autocast may differ in dtype."""
        dtype, device = self.input.dtype, self.input.device
        for direction in self.directions:
            given = direction.weight_ih, direction.weight_hh, direction.bias_ih, direction.bias_hh, *direction.state
            for tensor in given:
                if tensor is not None and (tensor.dtype != dtype or tensor.device != device):
                    self._check_each()
                    return

    def _check_each(self) -> None:
        first = self.directions[0].weight_ih
        cast = autocasts(first.device)
        named: list[tuple[str, Tensor | None]] = [("input", self.input)]
        for direction in self.directions:
            named += [(f"state {name}", s) for name, s in zip(self.cell.states, direction.state, strict=True)]
            named += [(name, getattr(direction, name)) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        for name, tensor in named:
            if tensor is None:
                continue
            if tensor.dtype != first.dtype and not (cast and tensor.dtype in AUTOCAST and first.dtype in AUTOCAST):
                raise RecurlabError(f"{name}={tensor.dtype}: must be {first.dtype}, as the layer's weights are")
            if tensor.device != first.device:
                raise RecurlabError(f"{name} on {tensor.device}: must be on {first.device}, as the layer's weights are")

    def cuts(self, *, reverse: bool) -> Tensor | None:
        """Return (T, B), True where one direction takes step t from a zero state; None where it never does.

        A boundary before step t cuts the reverse direction after step t. A boundary at a masked
        step takes effect at the direction's next valid step, so that it never changes a final
        state. The reverse direction starts at the last valid step, so that boundaries in the
        padding after that have no effect.
        """
        if self.resets is None:
            return None
        resets, mask = self.resets, self.mask
        if reverse:
            resets = torch.cat([resets, torch.zeros_like(resets[:1])])[1:]
        if mask is None:
            return resets
        if reverse:
            resets, mask = resets.flip(0), mask.flip(0)
        met = resets.cumsum(0)
        applied = _before(running_maximum(met * mask))
        cuts = mask & (met > applied)
        return (cuts & (_before(mask.cumsum(0)) > 0)).flip(0) if reverse else cuts


def autocasts(device: torch.device) -> bool:
    """Return whether autocast is on for a device; the meta device has none."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def transformed() -> bool:
    """Return whether torch.func or forward-mode differentiation is active, for which a backend needs rules."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


# In a compiled graph the answer is a constant.
transformed = constant(transformed)


def _before(rows: Tensor) -> Tensor:
    """Return the rows moved one step on, with zeros first."""
    return torch.cat([torch.zeros_like(rows[:1]), rows])[:-1]
