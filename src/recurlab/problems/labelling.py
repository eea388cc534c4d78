"""One class for each step, by cross-entropy."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from recurlab.data.batches import IGNORED
from recurlab.problems.problem import Measured, Problem


class Labelling(Problem):
    """Targets (B, T) whole numbers; the accuracy is that of the last `answer_steps` of the data set, or of all."""

    head: ClassVar = "every"
    metric: ClassVar = "accuracy"

    def measure(self, outputs: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Measured:
        """Return the cross-entropy of a step (nats) and the share of correct classes."""
        valid = targets != IGNORED
        count = valid.sum()
        loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        last = None if self.data is None else self.data.answer_steps
        if last is not None:  # the last ones of each sequence, which padding may follow
            length = targets.shape[1]
            ends = torch.full((len(targets),), length, device=targets.device) if lengths is None else lengths
            steps = torch.arange(length, device=targets.device)
            valid = valid & (steps >= ends.to(targets.device).unsqueeze(1) - last)
        right = (outputs.argmax(dim=-1) == targets) & valid
        asked = valid.sum()
        accuracy = right.sum().double() / asked.clamp_min(1)
        return Measured(loss / count.clamp_min(1), {"accuracy": accuracy}, count, asked)
