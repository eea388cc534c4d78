"""Losses and metrics of an evaluation against plain loops, through Lightning's trainer."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recurlab.config import TrainerConfig
from recurlab.data.batches import IGNORED, Batch
from recurlab.data.data import Ragged, RaggedData, StreamData
from recurlab.data.module import DataModule
from recurlab.data.music import Music
from recurlab.data.text import Text
from recurlab.errors import RecurlabError
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.classification import MOST_CLASSES, Classification
from recurlab.problems.labelling import Labelling
from recurlab.problems.language import Language
from recurlab.problems.loss import Loss
from recurlab.problems.multilabel import Multilabel
from recurlab.problems.optimizers import SGD
from recurlab.problems.regression import Regression
from recurlab.problems.schedulers import Constant
from recurlab.training.trainer import make_trainer, quiet

C, O = 3, 4  # noqa: E741
LENGTHS = np.array([5, 2, 9, 1, 4, 4, 7])  # by 3 in a batch: the last one has 1 sequence


@dataclass(frozen=True)
class Toy(RaggedData):
    """The sequences of all splits."""

    kind: Any = Classification
    eval_batch_size: int = 3

    def split(self, name, seed, epoch):
        rng = np.random.default_rng(0)
        steps = int(LENGTHS.sum())
        inputs = rng.normal(size=(steps, C)).astype(np.float32)
        if self.kind is Classification:
            return Ragged(inputs, LENGTHS, rng.integers(0, O, len(LENGTHS)))
        if self.kind is Regression:
            return Ragged(inputs, LENGTHS, rng.normal(size=(len(LENGTHS), O)).astype(np.float32))
        targets = rng.integers(0, 2, (steps, O)).astype(np.float32) if self.kind is Multilabel else None
        targets = rng.integers(0, O, steps) if targets is None else targets
        return Ragged(inputs, LENGTHS, targets, per_step=True)


@dataclass(frozen=True)
class LastTwo(Toy):
    answer_steps: ClassVar = 2


def problem_of(kind, data=None, loss=None, outputs=O):
    torch.manual_seed(0)
    model = SequenceModel(C, outputs, head=kind.head, layer={"hidden_size": 6, "num_layers": 1, "cell": "gru"})
    return kind(model, SGD(), Constant(), loss, data).double()


def outcome(problem):
    config = TrainerConfig(accelerator="cpu", precision="64-true", enable_progress_bar=False)
    with quiet():
        trainer = make_trainer(config, [], logger=False)
        return trainer.test(problem, DataModule(problem.data, seed=0), verbose=False)[0]


def each(problem):
    """Return the answers to each sequence alone, and its targets."""
    ragged = problem.data.split("test", 0, 0)
    cuts = np.cumsum(ragged.lengths)[:-1]
    inputs = [torch.from_numpy(part).double() for part in np.split(ragged.inputs, cuts)]
    targets = np.split(ragged.targets, cuts) if ragged.per_step else ragged.targets
    with torch.no_grad():
        return [(problem.model(x[None])[0], torch.as_tensor(target)) for x, target in zip(inputs, targets, strict=True)]


def test_classification_counts_every_sequence_once():
    problem = problem_of(Classification, Toy())
    found, pairs = outcome(problem), each(problem)
    loss = np.mean([-answer.log_softmax(-1)[target].item() for answer, target in pairs])
    right = [int(answer.argmax()) == int(target) for answer, target in pairs]
    assert 0 < sum(right) < len(right)
    assert found == pytest.approx({"test/loss": loss, "test/accuracy": np.mean(right)}, rel=1e-12)
    confusion = torch.zeros(O, O, dtype=torch.float64)
    for answer, target in pairs:
        confusion[target, answer.argmax()] += 1
    assert torch.equal(problem.confusion, confusion)
    outcome(problem)
    assert problem.confusion.sum() == len(pairs)  # a second test begins anew


def test_a_confusion_of_too_many_classes_is_not_kept():
    problem = problem_of(Classification, Toy(), outputs=MOST_CLASSES + 1)
    outcome(problem)
    assert problem.confusion is None


@pytest.mark.parametrize("kind", [Toy, LastTwo])
def test_labelling_counts_every_step_once_and_its_accuracy_those_that_are_asked(kind):
    problem = problem_of(Labelling, kind(kind=Labelling))
    found, pairs = outcome(problem), each(problem)
    losses = torch.cat([F.cross_entropy(answer, target, reduction="none") for answer, target in pairs])
    last = kind.answer_steps or 0
    right = torch.cat([(answer.argmax(-1) == target)[-last:] for answer, target in pairs])
    assert len(right) == (13 if last else LENGTHS.sum())
    wanted = {"test/loss": losses.mean().item(), "test/accuracy": right.double().mean().item()}
    assert found == pytest.approx(wanted, rel=1e-12)


def test_multilabel_is_the_negative_log_likelihood_of_a_frame():
    problem = problem_of(Multilabel, Toy(kind=Multilabel))
    found, total = outcome(problem), 0.0
    for answers, targets in each(problem):
        for step in range(len(answers)):
            for key in range(O):
                p = 1 / (1 + math.exp(-answers[step, key].item()))
                total -= math.log(p if targets[step, key] == 1 else 1 - p)
    nll = total / LENGTHS.sum()
    assert found == pytest.approx({"test/loss": nll, "test/nll": nll}, rel=1e-12)


def test_regression_is_the_mean_over_sequences():
    problem = problem_of(Regression, Toy(kind=Regression))
    mse = np.mean([(answer - target).square().mean().item() for answer, target in each(problem)])
    assert outcome(problem) == pytest.approx({"test/loss": mse, "test/mse": mse}, rel=1e-12)


def test_steps_that_a_user_leaves_out_count_nowhere():
    outputs = torch.randn(2, 3, O, dtype=torch.float64)
    targets = torch.tensor([[1, IGNORED, 2], [IGNORED, IGNORED, IGNORED]])
    measured = problem_of(Labelling).measure(outputs, targets)
    wanted = -(outputs[0, 0].log_softmax(-1)[1] + outputs[0, 2].log_softmax(-1)[2]) / 2
    torch.testing.assert_close(measured.loss, wanted)
    assert measured.items == 2
    nothing = problem_of(Labelling).measure(outputs[1:], targets[1:])
    assert (nothing.loss, nothing.metrics["accuracy"], nothing.items) == (0, 0, 0)


def test_the_answer_steps_are_the_last_ones_of_each_sequence():
    outputs = torch.zeros(2, 5, O)
    outputs[..., 1] = 1.0  # class 1 everywhere
    targets = torch.tensor([[0, 1, 0, IGNORED, IGNORED], [0, 0, 0, 1, 1]])
    problem = problem_of(Labelling, LastTwo())
    measured = problem.measure(outputs, targets, torch.tensor([3, 5]))
    assert measured.metrics["accuracy"] == 3 / 4
    assert (measured.items, measured.asked) == (8, 4)
    assert problem.measure(outputs[1:], targets[1:]).metrics["accuracy"] == 1


def test_a_perplexity_is_of_all_symbols_and_finite():
    problem = problem_of(Language)
    assert problem.summarize({"loss": math.log(8)}) == pytest.approx({"loss": math.log(8), "perplexity": 8, "bits": 3})
    assert problem.summarize({"loss": 1e6})["perplexity"] < float("inf")


def gradient_and_loss(problem, batch):
    problem.zero_grad()
    loss = problem.training_step(batch, 0)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in problem.parameters()])


@dataclass(frozen=True)
class Random(StreamData):
    bptt: int = 10
    random_bptt: bool = True


def windows_of():
    return Batch(torch.randn(2, 25, C, dtype=torch.float64), torch.randint(0, O, (2, 25)))


def test_a_loss_summed_over_time_is_the_mean_times_the_steps():
    batch = windows_of()
    mean, summed = (gradient_and_loss(problem_of(Language, loss=Loss(over_time=way)), batch) for way in ("mean", "sum"))
    assert summed[0] == pytest.approx(25 * mean[0], rel=1e-12)
    torch.testing.assert_close(summed[1], 25 * mean[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("regularised", [{}, {"ar": 2.0, "tar": 1.0}])
def test_a_window_of_random_length_weighs_as_much_as_it_has_symbols(regularised):
    batch = windows_of()
    plain = gradient_and_loss(problem_of(Language, Random(random_bptt=False), Loss(**regularised)), batch)
    random = gradient_and_loss(problem_of(Language, Random(), Loss(**regularised)), batch)
    assert random[0] == pytest.approx(2.5 * plain[0], rel=1e-12)
    torch.testing.assert_close(random[1], 2.5 * plain[1], rtol=1e-12, atol=1e-14)


def test_a_window_whose_steps_are_summed_weighs_so_already():
    batch, loss = windows_of(), Loss(over_time="sum")
    plain, random = (gradient_and_loss(problem_of(Language, Random(random_bptt=r), loss), batch) for r in (False, True))
    assert plain[0] == random[0]


@pytest.mark.parametrize("kind", [Classification, Regression])
def test_a_problem_with_one_answer_has_no_sum_over_time(kind):
    with pytest.raises(RecurlabError, match=r"loss\.over_time='sum': this problem has no loss at each step"):
        problem_of(kind, loss=Loss(over_time="sum"))


@pytest.mark.parametrize(("kind", "data"), [(Language, Text()), (Multilabel, Music())])
def test_what_is_to_come_may_not_be_read_in_reverse(kind, data):
    layer = {"hidden_size": 6, "num_layers": 1, "cell": "gru", "bidirectional": True}
    with pytest.raises(RecurlabError, match=r"model\.bidirectional=True: the reverse direction would read"):
        kind(SequenceModel(C, O, head="every", layer=layer), SGD(), Constant(), data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ar": -1}, "loss.ar=-1"), ({"tar": float("nan")}, "loss.tar=nan"), ({"over_time": "max"}, "'max': allowed are")],
)
def test_options_of_the_loss_out_of_range_are_refused(options, message):
    with pytest.raises(RecurlabError, match=message):
        Loss(**options)
