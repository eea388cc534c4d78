"""Layer normalisation inside the recurrence (Ba et al., arXiv 1607.06450, equations 20 to 22), and its variants."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5  # what torch.nn.LayerNorm and haste add to the variance


@dataclass(frozen=True)
class LayerNorm:
    """The gains of one direction of a layer; H units, G gates. The layer's biases are added to what is normalised.

    Attributes:
        gain_ih: (G*H,), of the input's projection, which is normalised over all gates together.
        gain_hh: (G*H,), of the recurrence, which is normalised over all gates of a phase of the
            cell together; None if it is not normalised.
        gain_state, bias_state: (H,), of the state that the step normalises; None if it normalises
            none. The bias is also None in a layer without biases.
        kind: "all" as said above; "gate": each gate by itself; "input": the input's projection
            alone; "rms": by the root of the mean square, without a mean (Zhang and Sennrich, arXiv
            1910.07467).
    """

    gain_ih: Tensor
    gain_hh: Tensor | None
    gain_state: Tensor | None
    bias_state: Tensor | None
    kind: str = "all"

    def to(self, dtype: torch.dtype) -> "LayerNorm":
        """Return the same in another precision."""
        gain_hh, gain_state, bias_state = (
            None if t is None else t.to(dtype) for t in (self.gain_hh, self.gain_state, self.bias_state)
        )
        return LayerNorm(self.gain_ih.to(dtype), gain_hh, gain_state, bias_state, self.kind)

    def normalized(self, rows: Tensor, gain: Tensor, bias: Tensor | None, gates: int = 1) -> Tensor:
        """Return rows (..., F) of so many gates, each row normalised, times `gain` (F,), plus `bias` (F,)."""
        if self.kind == "rms":
            rows = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + EPSILON) * gain
            return rows if bias is None else rows + bias
        if self.kind == "gate" and gates > 1:
            by_gate = rows.view(*rows.shape[:-1], gates, -1)
            rows = F.layer_norm(by_gate, by_gate.shape[-1:], eps=EPSILON).flatten(-2) * gain
            return rows if bias is None else rows + bias
        return F.layer_norm(rows, rows.shape[-1:], gain, bias, EPSILON)

    def of_state(self, state: Tensor) -> Tensor:
        """Return a state (B, H), normalised over its units where it has gains."""
        return state if self.gain_state is None else self.normalized(state, self.gain_state, self.bias_state)
