"""Recurrent layers on top of each other: (T, B, F) to (T, B, output_size), each with the same options."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from recurlab.errors import RecurlabError
from recurlab.layers.noise import sequence_dropout
from recurlab.layers.options import split_weights
from recurlab.layers.rnn import RNN
from recurlab.models.normalization import BatchNormOverTime


class Steps(NamedTuple):
    """Which steps of a batch are valid, and where the state is reset.

    Attributes:
        mask: boolean (T, B), or None where all steps are valid.
        lengths: (B,), if `mask` is theirs, or None.
        resets: boolean (T, B) or None.
    """

    mask: Tensor | None = None
    lengths: Tensor | None = None
    resets: Tensor | None = None

    def through(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return the output of a recurrent layer."""
        # Lengths rather than their mask: cuDNN takes only lengths.
        return layer(x, lengths=self.lengths, resets=self.resets)[0]  # type: ignore[no-any-return]


class PlainStack(nn.Module):
    """One `RNN` of num_layers, with dropout between them."""

    def __init__(self, input_size: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.rnn = RNN(input_size, **options)
        self.output_size = self.rnn.hidden_size * self.rnn.num_directions

    def forward(self, x: Tensor, steps: Steps) -> Tensor:
        """Return the output of the last layer."""
        return steps.through(self.rnn, x)


class _Layers(nn.Module):
    """Single layers with a normalisation each; only the last layer starts as `last_init` of its weights says."""

    def __init__(self, input_size: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        weights, rest = split_weights(options)
        count, self.dropout = rest.pop("num_layers"), rest.pop("dropout", 0.0)
        self.variational = rest.pop("variational", False)
        self.output_size = rest["hidden_size"] * (2 if rest.get("bidirectional") else 1)
        last: dict[str, Any] = {**rest, **weights}
        inner = {**rest, **{argument: replace(own, last_init=None) for argument, own in weights.items()}}
        self.layers = nn.ModuleList(
            RNN(self.output_size if layer else input_size, **(last if layer == count - 1 else inner))
            for layer in range(count)
        )
        self.norms = nn.ModuleList(BatchNormOverTime(self.output_size) for _ in range(count))

    def drop(self, x: Tensor) -> Tensor:
        """Apply dropout."""
        return sequence_dropout(x, self.dropout, self.training, shared=self.variational)


class BatchNormStack(_Layers):
    """Per layer: recurrence, batch normalisation over time, dropout (Li et al., arXiv 1803.04831)."""

    def forward(self, x: Tensor, steps: Steps) -> Tensor:
        """Return the output of the last layer, normalised."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.drop(norm(steps.through(layer, x), steps.mask))
        return x


class ResidualStack(_Layers):
    """A layer, pre-activation blocks of two with an identity around each, a layer (arXiv 1803.04831).

    Each layer but the first is preceded by its normalisation and followed by dropout, and the last
    one is followed by the normalisation that is left; twelve layers have five blocks.
    """

    def __init__(self, input_size: int, options: Mapping[str, Any]) -> None:
        layers = options["num_layers"]
        if layers < 4 or layers % 2:
            raise RecurlabError(f"num_layers={layers}: a residual stack has an even number of at least 4")
        super().__init__(input_size, options)

    def forward(self, x: Tensor, steps: Steps) -> Tensor:
        """Return the output of the last layer, normalised."""
        x = steps.through(self.layers[0], x)
        for first in range(1, len(self.layers) - 1, 2):
            x = x + self._unit(first + 1, self._unit(first, x, steps), steps)
        x = self._unit(len(self.layers) - 1, x, steps)
        return self.norms[0](x, steps.mask)  # type: ignore[no-any-return]

    def _unit(self, layer: int, x: Tensor, steps: Steps) -> Tensor:
        return self.drop(steps.through(self.layers[layer], self.norms[layer](x, steps.mask)))
