"""The next symbol of a text, by cross-entropy."""

from math import exp, log
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from recurlab.data.batches import IGNORED, Batch
from recurlab.data.data import StreamData
from recurlab.problems.problem import Measured, Problem


class Language(Problem):
    """Targets (B, T) symbols."""

    head: ClassVar = "every"
    metric: ClassVar = "perplexity"

    def measure(self, outputs: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Measured:
        """Return the cross-entropy of a symbol (nats)."""
        count = (targets != IGNORED).sum()
        loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return Measured(loss / count.clamp_min(1), {}, count)

    def summarize(self, means: dict[str, float]) -> dict[str, float]:
        """Return the loss (nats), the perplexity and the bits of a symbol, of all symbols together."""
        nats = means["loss"]
        return {**means, "perplexity": exp(min(nats, 700)), "bits": nats / log(2)}

    def loss_factor(self, batch: Batch) -> float:
        """Return the length of a batch to the usual one where lengths are random, so that symbols weigh the same."""
        if not isinstance(self.data, StreamData) or not self.data.random_bptt:
            return 1.0
        return batch.inputs.shape[1] / self.data.bptt if self._loss.over_time == "mean" else 1.0
