"""One class for each sequence, by cross-entropy."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from recurlab.problems.problem import Measured, Problem

MOST_CLASSES = 1000  # of a confusion matrix


class Classification(Problem):
    """Targets (B,) whole numbers.

    Attributes:
        confusion: (K, K), how many test sequences of each class (row) were taken for which
            (column), after a test.
    """

    head: ClassVar = "last"
    metric: ClassVar = "accuracy"

    confusion: Tensor | None = None

    def measure(self, outputs: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Measured:
        """Return the cross-entropy (nats) and the share of correct classes."""
        accuracy = (outputs.argmax(dim=-1) == targets).double().mean()
        return Measured(F.cross_entropy(outputs, targets), {"accuracy": accuracy}, len(targets))

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        super().on_test_epoch_start()
        classes = self.model.head.out_features
        counts = torch.zeros(classes, classes, dtype=torch.float64, device=self.device)
        self.confusion = counts if classes <= MOST_CLASSES else None

    def observe(self, split: str, outputs: Tensor, targets: Tensor) -> None:
        """Count the pairs of class and answer."""
        if split == "test" and self.confusion is not None:
            ones = torch.ones(len(targets), dtype=torch.float64, device=self.device)
            self.confusion.index_put_((targets, outputs.argmax(dim=-1)), ones, accumulate=True)

    def on_test_epoch_end(self) -> None:
        """Add up what the processes counted."""
        super().on_test_epoch_end()
        if self.confusion is not None:
            self.confusion = self.sum_of_processes(self.confusion).cpu()
