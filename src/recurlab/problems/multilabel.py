"""Several yes-or-no answers at each step, by binary cross-entropy: polyphonic music."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from recurlab.problems.problem import Measured, Problem, valid_steps


class Multilabel(Problem):
    """Targets (B, T, O) of 0 and 1."""

    head: ClassVar = "every"
    metric: ClassVar = "nll"

    def measure(self, outputs: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Measured:
        """Return the negative log-likelihood of a frame in nats, its O answers summed, as loss and as metric."""
        valid = valid_steps(outputs, lengths)
        targets = targets.masked_fill(~valid.unsqueeze(-1), 0)  # 0 times a padded NaN would be NaN
        each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(dim=-1)
        count = valid.sum()
        loss = (each * valid).sum() / count
        return Measured(loss, {"nll": loss.detach()}, count)
