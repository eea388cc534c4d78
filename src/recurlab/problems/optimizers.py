"""The optimisers: torch's, as dataclasses of their options that are checked without importing torch."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recurlab.errors import RecurlabError, check_number

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class OptimizerSpec:
    """Options that all optimisers share.

    Attributes:
        lr: learning rate.
        weight_decay: L2 penalty; matrices have it, recurrent diagonals and biases have not (Li et
            al., 2018).
    """

    lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_number("optimizer.lr", self.lr, above=0)
        check_number("optimizer.weight_decay", self.weight_decay, low=0)

    def build(self, model: "nn.Module") -> "Optimizer":
        """Return the torch optimiser of this class's name for the parameters of a model."""
        import torch

        parameters = [p for p in model.parameters() if p.requires_grad]
        options: dict[str, Any] = asdict(self)
        groups = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer: Optimizer = getattr(torch.optim, type(self).__name__)(groups, **options)
        return optimizer


@dataclass(frozen=True)
class Adam(OptimizerSpec):
    """Kingma and Ba, arXiv 1412.6980; weight_decay adds to the gradient."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2:
            raise RecurlabError(f"optimizer.betas={list(self.betas)}: must be two numbers")
        for beta in self.betas:
            check_number("optimizer.betas", beta, low=0, high=0.99999999)
        check_number("optimizer.eps", self.eps, above=0)


@dataclass(frozen=True)
class AdamW(Adam):
    """Loshchilov and Hutter, arXiv 1711.05101: weight_decay apart from the gradient."""


@dataclass(frozen=True)
class RMSprop(OptimizerSpec):
    """Tieleman and Hinton, lecture 6.5 of Neural networks for machine learning, 2012."""

    alpha: float = 0.99
    momentum: float = 0.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("optimizer.alpha", self.alpha, low=0, high=1)
        check_number("optimizer.momentum", self.momentum, low=0)
        check_number("optimizer.eps", self.eps, above=0)


@dataclass(frozen=True)
class SGD(OptimizerSpec):
    """Stochastic gradient descent."""

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("optimizer.momentum", self.momentum, low=0)
        if self.nesterov and self.momentum == 0:
            raise RecurlabError(f"optimizer.nesterov={self.nesterov}: needs optimizer.momentum greater than 0")
