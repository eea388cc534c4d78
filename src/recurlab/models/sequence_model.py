"""The model of every experiment: encoder, stack, head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recurlab.errors import check_choice
from recurlab.layers.sequence import mask_of
from recurlab.models import ENCODERS, HEADS, STACKS


class SequenceModel(nn.Module):
    """Maps sequences (B, T, C) to one answer each, or to one a step.

    Args:
        input_size: C, features of a step, or symbols for an embedding.
        output_size: O, numbers in an answer.
        head: "last" answers after the last valid step, "every" at each step.
        encoder, encoder_size: a name of `ENCODERS` and its features.
        stack: a name of `STACKS`.
        layer: arguments of `recurlab.RNN` but for its input_size and batch_first.

    Raises:
        RecurlabError: for an unknown name or a value out of range.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        head: str,
        layer: Mapping[str, Any],
        encoder: str = "none",
        encoder_size: int | None = None,
        stack: str = "plain",
    ) -> None:
        super().__init__()
        check_choice("head", head, HEADS)
        self.answer = head
        self.encoder = ENCODERS[encoder](input_size, encoder_size)
        self.stack = STACKS[stack](self.encoder.output_size, layer)
        self.bidirectional = bool(layer.get("bidirectional"))
        self.head = nn.Linear(self.stack.output_size, output_size)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (B, O), or (B, T, O) with head="every".

        Args:
            inputs: (B, T, C), or (B, T) symbols for an embedding.
            lengths: (B,) for right-padded sequences.
        """
        x, mask = inputs.transpose(0, 1), None
        if lengths is not None:
            mask = mask_of(lengths, x)
            x = x.masked_fill(~mask.view(*mask.shape, *(1,) * (x.dim() - 2)), 0)
        output = self.stack(self.encoder(x), mask)
        if self.answer == "every":
            return self.head(output).transpose(0, 1)  # type: ignore[no-any-return]
        return self.head(self._last(output, lengths))  # type: ignore[no-any-return]

    def _last(self, output: Tensor, lengths: Tensor | None) -> Tensor:
        """Return what each direction says when it has read all: the forward one at the end, the reverse at step 0."""
        samples = torch.arange(output.shape[1], device=output.device)
        ends = output[-1] if lengths is None else output[lengths - 1, samples]
        if not self.bidirectional:
            return ends
        half = output.shape[-1] // 2
        return torch.cat([ends[:, :half], output[0, :, half:]], dim=-1)
