"""What another package is asked to run."""

from dataclasses import dataclass
from typing import Any

import torch

from recurlab.bench.layers import Candidate, Case, LayerCall, prepare_layer
from recurlab.bench.settings import BenchSettings, Shape


@dataclass(frozen=True)
class Workload:
    """A case, a shape, the settings that tell its precision and device, and the seed of its numbers."""

    case: Case
    shape: Shape
    settings: BenchSettings
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.cell} {self.precision} {self.shape}"

    @property
    def cell(self) -> str:
        """The cell's name."""
        return self.case.cell

    @property
    def precision(self) -> str:
        """The type of the tensors, or tf32 where float32 matrices may be multiplied so."""
        settings = self.settings
        return "tf32" if settings.tf32 and settings.dtype == "float32" else settings.dtype

    @property
    def factory(self) -> dict[str, Any]:
        """Device and dtype, as torch's factory functions take them."""
        return {"device": self.settings.device, "dtype": getattr(torch, self.settings.dtype)}

    def batch_first(self) -> torch.Tensor:
        """Return an input (B, T, I)."""
        return torch.randn(self.shape.batch, self.shape.steps, self.shape.features, **self.factory)

    def layer(self, backend: str) -> LayerCall:
        """Return the layer and the input of ours, torch's or of what is compiled from ours, for the same numbers."""
        return prepare_layer(Candidate(self.case, backend), self.shape, self.settings, self.seed)
