"""What turns a step of the input into features, before the first recurrent layer."""

from torch import Tensor, nn

from recurlab.errors import RecurlabError


class NoEncoder(nn.Module):
    """The input as it is: (T, B, C) to (T, B, C)."""

    def __init__(self, input_size: int, encoder_size: int | None) -> None:
        super().__init__()
        if encoder_size is not None:
            raise RecurlabError(f"encoder_size={encoder_size}: encoder='none' has no size, leave it null")
        self.output_size = input_size

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class LinearEncoder(nn.Module):
    """An affine map of each step: (T, B, C) to (T, B, encoder_size); encoder_size None is C."""

    def __init__(self, input_size: int, encoder_size: int | None) -> None:
        super().__init__()
        self.output_size = encoder_size or input_size
        self.map = nn.Linear(input_size, self.output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.map(x)  # type: ignore[no-any-return]


class EmbeddingEncoder(nn.Module):
    """A vector per symbol: (T, B) whole numbers below C to (T, B, encoder_size); encoder_size None is C."""

    def __init__(self, input_size: int, encoder_size: int | None) -> None:
        super().__init__()
        self.output_size = encoder_size or input_size
        self.table = nn.Embedding(input_size, self.output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors; anything but whole numbers is an error."""
        if x.is_floating_point() or x.dim() != 2:
            raise RecurlabError(f"input={tuple(x.shape)} {x.dtype}: an embedding takes whole numbers (T, B)")
        return self.table(x)  # type: ignore[no-any-return]
