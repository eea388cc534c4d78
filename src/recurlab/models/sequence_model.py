"""The model of every experiment: encoder, stack, head."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from recurlab.errors import RecurlabError, check_choice
from recurlab.layers.initializers import Initializer
from recurlab.layers.noise import sequence_dropout
from recurlab.layers.sequence import mask_of
from recurlab.models import ENCODERS, HEADS, STACKS
from recurlab.models.encoders import EmbeddingEncoder
from recurlab.models.stacks import Steps
from recurlab.models.units import Units


class Features(NamedTuple):
    """The output of the stack at each step, (T, B, F): raw, and after dropout, as the head reads it."""

    raw: Tensor
    dropped: Tensor
    steps: Steps


class SequenceModel(nn.Module):
    """Maps sequences (B, T, C) to one answer each, or to one a step.

    Args:
        input_size: C, features of a step, or symbols for an embedding.
        output_size: O, numbers in an answer.
        head: "last" answers after the last valid step, "every" at each step.
        encoder, encoder_size: a name in `ENCODERS`, and the features that the encoder gives.
        stack: a name in `STACKS`.
        layer: arguments of `recurlab.RNN`, without input_size and batch_first.
        embedding_dropout: probability of dropping whole symbols, where the encoder is an embedding.
        input_dropout, output_dropout: probabilities before the first and after the last layer; one
            mask for all steps if the layer is `variational`.
        tie_weights: whether the head's weight is the embedding's (Press and Wolf, arXiv
            1608.05859).
        encoder_init, head_init: initialisers of the weight matrices; None is torch's. With
            head_init the bias is 0.
        units: mean and standard deviation of each number in an answer, by which the head's output
            is scaled; () leaves it as it is.

    Raises:
        RecurlabError: for an unknown name, a value out of range or weights that can't be tied.
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
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        tie_weights: bool = False,
        encoder_init: Initializer | None = None,
        head_init: Initializer | None = None,
        units: Sequence[tuple[float, float]] = (),
    ) -> None:
        super().__init__()
        check_choice("head", head, HEADS)
        self.input_size, self.answer = input_size, head
        if embedding_dropout and encoder != "embedding":
            raise RecurlabError(f"embedding_dropout={embedding_dropout}: needs encoder='embedding', not {encoder!r}")
        extra = {"dropout": embedding_dropout} if encoder == "embedding" else {}
        self.encoder = ENCODERS[encoder](input_size, encoder_size, **extra)
        self.stack = STACKS[stack](self.encoder.output_size, layer)
        self.bidirectional = bool(layer.get("bidirectional"))
        self.input_dropout, self.output_dropout = input_dropout, output_dropout
        self.variational = bool(layer.get("variational"))
        self.head = nn.Linear(self.stack.output_size, output_size)
        self.units = Units(units) if units else None
        self._initialize(encoder_init, head_init)
        if tie_weights:
            self._tie()

    def _initialize(self, encoder_init: Initializer | None, head_init: Initializer | None) -> None:
        with torch.no_grad():
            if encoder_init is not None:
                matrices = [weight for weight in self.encoder.parameters() if weight.dim() == 2]
                if not matrices:
                    raise RecurlabError(f"encoder_init={encoder_init}: this encoder has no weights, leave it null")
                for weight in matrices:
                    encoder_init(weight[None, None])
            if head_init is not None:
                head_init(self.head.weight[None, None])
                self.head.bias.zero_()

    def _tie(self) -> None:
        if not isinstance(self.encoder, EmbeddingEncoder) or self.encoder.table.weight.shape != self.head.weight.shape:
            rows, columns = self.head.weight.shape
            raise RecurlabError(
                f"tie_weights=True: needs encoder='embedding' with {rows} symbols and encoder_size={columns}"
            )
        self.head.weight = self.encoder.table.weight

    def forward(
        self, inputs: Tensor | PackedSequence, lengths: Tensor | None = None, resets: Tensor | None = None
    ) -> Tensor:
        """Return (B, O), or (B, T, O) with head="every".

        Args:
            inputs: (B, T, C), or (B, T) symbols for an embedding; or packed, with lengths of its
                own.
            lengths: (B,) for right-padded sequences; best on the CPU, where reading them waits for
                no device.
            resets: boolean (B, T), True where a sample's state is zero before the step.
        """
        return self.answers(self.features(inputs, lengths, resets))

    def features(
        self, inputs: Tensor | PackedSequence, lengths: Tensor | None = None, resets: Tensor | None = None
    ) -> Features:
        """Return the output of the stack, for arguments like those of `forward`."""
        if isinstance(inputs, PackedSequence):
            if lengths is not None:
                raise RecurlabError("lengths: a PackedSequence carries its own")
            inputs, lengths = pad_packed_sequence(inputs, batch_first=True)
        x, mask = inputs.transpose(0, 1), None
        if lengths is not None:
            mask = mask_of(lengths, x)
            x = x.masked_fill(~mask.view(*mask.shape, *(1,) * (x.dim() - 2)), 0)
        steps = Steps(mask, lengths, None if resets is None else resets.transpose(0, 1))
        x = sequence_dropout(self.encoder(x), self.input_dropout, self.training, shared=self.variational)
        raw = self.stack(x, steps)
        return Features(raw, sequence_dropout(raw, self.output_dropout, self.training, shared=self.variational), steps)

    def answers(self, features: Features) -> Tensor:
        """Return the answers of `forward` for the result of `features`."""
        if self.answer == "every":
            answers = self.head(features.dropped).transpose(0, 1)
        else:
            answers = self.head(self._last(features.dropped, features.steps.lengths))
        return answers if self.units is None else self.units(answers)  # type: ignore[no-any-return]

    def _last(self, output: Tensor, lengths: Tensor | None) -> Tensor:
        """Return each direction's output at its last step: the end for the forward one, step 0 for the reverse one."""
        samples = torch.arange(output.shape[1], device=output.device)
        ends = output[-1] if lengths is None else output[lengths.to(output.device) - 1, samples]
        if not self.bidirectional:
            return ends
        half = output.shape[-1] // 2
        return torch.cat([ends[:, :half], output[0, :, half:]], dim=-1)
