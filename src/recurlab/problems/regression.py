"""Numbers after the last step, by mean squared error."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from recurlab.errors import RecurlabError
from recurlab.problems.problem import Measured, Problem


class Regression(Problem):
    """Targets (B, O)."""

    head: ClassVar = "last"
    metric: ClassVar = "mse"

    def measure(self, outputs: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Measured:
        """Return the mean squared error: as metric in the targets' units, as loss in those that the model learns in."""
        if outputs.shape != targets.shape:
            raise RecurlabError(f"targets={tuple(targets.shape)}: the model answers {tuple(outputs.shape)}")
        if self.model.units is None:
            loss = F.mse_loss(outputs, targets)
            return Measured(loss, {"mse": loss.detach()}, len(targets))
        error = outputs - targets
        loss = (error / self.model.units.deviation).square().mean()
        return Measured(loss, {"mse": error.detach().double().square().mean()}, len(targets))
