"""Symbols drawn from a language model, one after another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from recurlab.data.vocabulary import EOS, Vocabulary
from recurlab.errors import RecurlabError
from recurlab.layers.rnn import RNN
from recurlab.models.sequence_model import SequenceModel
from recurlab.results.sampling import Sampling


class Sampler:
    """Draws symbols as those of the text that a model was trained on.

    Args:
        model: in evaluation mode, with an answer at every step; its layers are made stateful, and
            run by `eager`, which is the fastest for single steps and the same on every machine.
        vocabulary: of its symbols.
        documents: what the text was cut into: "stream", "line" or "paragraph". Where a new one
            begins, the state is zero as it was in training.
    """

    def __init__(self, model: SequenceModel, vocabulary: Vocabulary, documents: str) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._layers = [module for module in model.modules() if isinstance(module, RNN)]
        for layer in self._layers:
            layer.stateful, layer.backend = True, "eager"
        end = vocabulary.index.get(EOS if vocabulary.level == "word" else "\n")
        count = {"line": 1, "paragraph": 2}.get(documents, 0)
        self._end = [end] * count  # with which a document ends

    def symbols(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Yield `sampling.length` symbols that go on from a prompt; the unknown one is never drawn.

        Raises:
            RecurlabError: for a model whose answers are not finite.
        """
        generator = torch.Generator().manual_seed(sampling.seed)
        for layer in self._layers:
            layer.reset_states()
        begins = [self._begins(prompt[max(0, place - 2) : place]) for place in range(len(prompt) + 1)]
        scores = self._read([self.vocabulary.before, *prompt], begins)
        last = list(prompt[-1:])
        for place in range(sampling.length):
            symbol = self._draw(scores, sampling, generator)
            yield symbol
            last = [*last[-1:], symbol]  # no end of a document has more
            if place + 1 < sampling.length:
                scores = self._read([symbol], [self._begins(last)])

    def _begins(self, history: Sequence[int]) -> bool:
        """Return whether a document begins after these symbols; the input there is `before`, which is their last."""
        return bool(self._end) and list(history[-len(self._end) :]) == self._end

    @torch.inference_mode()
    def _read(self, inputs: list[int], resets: list[bool]) -> Tensor:
        """Run steps, from the state that the last ones left; return the scores of what follows, (V,) float64."""
        cuts = torch.tensor([resets]) if any(resets) else None
        with _one_thread():
            features = self.model.features(torch.tensor([inputs]), resets=cuts)
            last = features._replace(raw=features.raw[-1:], dropped=features.dropped[-1:])
            return self.model.answers(last)[0, -1].double()

    @torch.inference_mode()
    def _draw(self, scores: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
        if self.vocabulary.unknown is not None:
            scores[self.vocabulary.unknown] = -torch.inf
        if sampling.top_k is not None:
            best = scores.topk(sampling.top_k)
            scores = torch.full_like(scores, -torch.inf).scatter_(0, best.indices, best.values)
        highest = scores.max()
        if not torch.isfinite(highest):
            raise RecurlabError(f"the model's answer is {highest.item()}, from which nothing can be drawn")
        weights = ((scores - highest) / sampling.temperature).exp()  # so that no temperature overflows
        return int(torch.multinomial(weights, 1, generator=generator))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep single steps on one thread: more of them wait for each other longer than they work."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
