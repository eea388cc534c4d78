"""One class for each sequence, by cross-entropy."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from recurlab.tasks.task import Task


class Classification(Task):
    """Targets (B,) whole numbers."""

    head: ClassVar = "last"
    metric: ClassVar = "accuracy"
    mode: ClassVar = "max"

    def measure(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy (nats) and the share of correct classes."""
        accuracy = (outputs.argmax(dim=-1) == targets).float().mean()
        return F.cross_entropy(outputs, targets), {"accuracy": accuracy}
