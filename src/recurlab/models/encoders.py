"""Encoders: they turn each step of the input into features for the first recurrent layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recurlab.errors import RecurlabError
from recurlab.layers.noise import dropout_factor


class NoEncoder(nn.Module):
    """The input as it is: (T, B, C) to (T, B, C)."""

    symbols = False

    def __init__(self, input_size: int, encoder_size: int | None) -> None:
        super().__init__()
        if encoder_size is not None:
            raise RecurlabError(f"encoder_size={encoder_size}: encoder='none' has no size, leave it null")
        self.output_size = input_size

    def forward(self, x: Tensor) -> Tensor:
        """Return x; symbols are an error."""
        _check_numbers(x)
        return x


class LinearEncoder(nn.Module):
    """An affine map of each step: (T, B, C) to (T, B, encoder_size); encoder_size None is C."""

    symbols = False

    def __init__(self, input_size: int, encoder_size: int | None) -> None:
        super().__init__()
        self.output_size = encoder_size or input_size
        self.map = nn.Linear(input_size, self.output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features; symbols are an error."""
        _check_numbers(x)
        return self.map(x)  # type: ignore[no-any-return]


class OneHotEncoder(nn.Module):
    """A unit vector per symbol: (T, B) whole numbers below C to (T, B, C)."""

    symbols = True

    def __init__(self, input_size: int, encoder_size: int | None) -> None:
        super().__init__()
        if encoder_size is not None:
            raise RecurlabError(f"encoder_size={encoder_size}: encoder='one_hot' has a size, leave it null")
        self.output_size = input_size
        self.like: Tensor
        self.register_buffer("like", torch.empty(0), persistent=False)  # only to have the model's dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors; anything but whole numbers is an error."""
        _check_symbols(x)
        return F.one_hot(x, self.output_size).to(self.like)


class EmbeddingEncoder(nn.Module):
    """A vector per symbol: (T, B) whole numbers below C to (T, B, encoder_size); encoder_size None is C.

    With `dropout` p, a symbol's whole vector is 0 with probability p, in all of the batch (Gal and
    Ghahramani, arXiv 1512.05287; Merity et al., arXiv 1708.02182, section 4.3).
    """

    symbols = True

    def __init__(self, input_size: int, encoder_size: int | None, dropout: float = 0.0) -> None:
        super().__init__()
        self.output_size = encoder_size or input_size
        self.table = nn.Embedding(input_size, self.output_size)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors; anything but whole numbers is an error."""
        _check_symbols(x)
        factor = dropout_factor(self.table.weight, (self.table.num_embeddings, 1), self.dropout, self.training)
        vectors: Tensor = self.table(x)
        return vectors if factor is None else vectors * factor[x]


def _check_numbers(x: Tensor) -> None:
    if not x.is_floating_point():
        raise RecurlabError(f"input={tuple(x.shape)} {x.dtype}: symbols need the encoder 'embedding' or 'one_hot'")


def _check_symbols(x: Tensor) -> None:
    if x.is_floating_point() or x.dim() != 2:
        raise RecurlabError(f"input={tuple(x.shape)} {x.dtype}: this encoder takes whole numbers (T, B)")
