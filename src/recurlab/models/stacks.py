"""Recurrent layers on top of each other: (T, B, F) to (T, B, output_size), each with the same options."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from recurlab.errors import RecurlabError
from recurlab.layers.noise import sequence_dropout
from recurlab.layers.rnn import RNN
from recurlab.models.normalization import BatchNormOverTime


class PlainStack(nn.Module):
    """One `RNN` of num_layers, with dropout between them."""

    def __init__(self, input_size: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.rnn = RNN(input_size, **options)
        self.output_size = self.rnn.hidden_size * self.rnn.num_directions

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the output of the last layer."""
        return self.rnn(x, mask=mask)[0]  # type: ignore[no-any-return]


class _Layers(nn.Module):
    """Single layers with a normalisation each; only the last layer starts as `last_recurrent_init` says."""

    def __init__(self, input_size: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        own = ("num_layers", "dropout", "variational", "last_recurrent_init")
        shared = {key: value for key, value in options.items() if key not in own}
        self.dropout, self.variational = options.get("dropout", 0.0), options.get("variational", False)
        self.output_size = options["hidden_size"] * (2 if options.get("bidirectional") else 1)
        count = options["num_layers"]
        last: dict[str, Any] = {"last_recurrent_init": options.get("last_recurrent_init")}
        self.layers = nn.ModuleList(
            RNN(self.output_size if place else input_size, **shared, **(last if place == count - 1 else {}))
            for place in range(count)
        )
        self.norms = nn.ModuleList(BatchNormOverTime(self.output_size) for _ in range(count))

    def drop(self, x: Tensor) -> Tensor:
        """Apply dropout."""
        return sequence_dropout(x, self.dropout, self.training, shared=self.variational)


class BatchNormStack(_Layers):
    """Per layer: recurrence, batch normalisation over time, dropout (Li et al., arXiv 1803.04831)."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the output of the last layer, normalised."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.drop(norm(layer(x, mask=mask)[0], mask))
        return x


class ResidualStack(_Layers):
    """A layer, pre-activation blocks of two with an identity around each, a layer (arXiv 1803.04831).

    Each layer but the first is preceded by its normalisation and followed by dropout, and the last one is followed by
    the normalisation that is left; twelve layers have five blocks.
    """

    def __init__(self, input_size: int, options: Mapping[str, Any]) -> None:
        layers = options["num_layers"]
        if layers < 4 or layers % 2:
            raise RecurlabError(f"num_layers={layers}: a residual stack has an even number of at least 4")
        super().__init__(input_size, options)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the output of the last layer, normalised."""
        x = self.layers[0](x, mask=mask)[0]
        for first in range(1, len(self.layers) - 1, 2):
            x = x + self._unit(first + 1, self._unit(first, x, mask), mask)
        x = self._unit(len(self.layers) - 1, x, mask)
        return self.norms[0](x, mask)  # type: ignore[no-any-return]

    def _unit(self, place: int, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.drop(self.layers[place](self.norms[place](x, mask), mask=mask)[0])
