"""Layer normalisation inside the recurrence (Ba et al., arXiv 1607.06450, equations 20 to 22)."""

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
            cell together.
        gain_state, bias_state: (H,), of the state that the step normalises; None if it normalises
            none. The bias is also None in a layer without biases.
    """

    gain_ih: Tensor
    gain_hh: Tensor
    gain_state: Tensor | None
    bias_state: Tensor | None

    def to(self, dtype: torch.dtype) -> "LayerNorm":
        """Return the same in another precision."""
        tensors = (self.gain_ih, self.gain_hh, self.gain_state, self.bias_state)
        gain_ih, gain_hh, gain_state, bias_state = (None if t is None else t.to(dtype) for t in tensors)
        assert gain_ih is not None
        assert gain_hh is not None
        return LayerNorm(gain_ih, gain_hh, gain_state, bias_state)

    def of_state(self, state: Tensor) -> Tensor:
        """Return a state (B, H) normalised over its units."""
        return normalized(state, self.gain_state, self.bias_state)


def normalized(rows: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return rows (..., F), each brought to mean 0 and variance 1, times `gain` (F,), plus `bias` (F,)."""
    return F.layer_norm(rows, rows.shape[-1:], gain, bias, EPSILON)
