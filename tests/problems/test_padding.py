"""What pads a batch has exactly no effect on a loss, a metric or a gradient."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from recurlab.data.batches import IGNORED, Batch
from recurlab.data.data import Data
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.classification import Classification
from recurlab.problems.labelling import Labelling
from recurlab.problems.loss import Loss
from recurlab.problems.multilabel import Multilabel
from recurlab.problems.optimizers import SGD
from recurlab.problems.regression import Regression
from recurlab.problems.schedulers import Constant

B, T, C, O = 5, 8, 3, 4  # noqa: E741
LENGTHS = torch.tensor([8, 1, 4, 2, 7])
PADDING = torch.arange(T) >= LENGTHS[:, None]
NAN = float("nan")
KINDS = [Classification, Labelling, Multilabel, Regression]


@dataclass(frozen=True)
class LastTwo(Data):
    answer_steps: ClassVar = 2


def problem_of(kind, stack="plain", loss=None, data=None, encoder="none", **options):
    torch.manual_seed(0)
    layers = {"plain": 2, "batchnorm": 2, "residual": 4}[stack]
    layer = {"hidden_size": 6, "num_layers": layers, "cell": "gru", **options}
    model = SequenceModel(C, O, head=kind.head, layer=layer, stack=stack, encoder=encoder)
    return kind(model, SGD(), Constant(), loss, data).double()


def batch_of(kind, padding=0.0, further=0):
    """Return the same sequences, with padding of a value and more steps of it."""
    torch.manual_seed(1)
    inputs = torch.randn(B, T, C, dtype=torch.float64)
    targets = {
        Classification: torch.randint(0, O, (B,)),
        Labelling: torch.randint(0, O, (B, T)).masked_fill(PADDING, IGNORED),
        Multilabel: torch.randint(0, 2, (B, T, O)).double(),
        Regression: torch.randn(B, O, dtype=torch.float64),
    }[kind]
    inputs = longer(inputs.masked_fill(PADDING[..., None], padding), further, padding)
    if kind is Multilabel:
        targets = longer(targets.masked_fill(PADDING[..., None], padding), further, padding)
    if kind is Labelling:
        targets = longer(targets, further, IGNORED)
    return Batch(inputs, targets, LENGTHS)


def longer(x, further, padding):
    return torch.cat([x, x.new_full((B, further, *x.shape[2:]), padding)], dim=1)


def everything(problem, batch):
    """Return the loss of a training step, what it logs, and all gradients."""
    problem.zero_grad()
    statistics = {name: value.clone() for name, value in problem.named_buffers()}
    loss = problem.training_step(batch, 0)
    loss.backward()
    found = {**problem.measured, "loss": loss.detach()}
    for name, buffer in problem.named_buffers():
        found[name] = buffer.clone()
        buffer.copy_(statistics[name])
    found |= {name: p.grad.clone() for name, p in problem.named_parameters()}
    return found


def assert_same(a, b, exactly=False):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.isfinite(a[name]).all(), name
        if exactly:
            assert torch.equal(a[name], b[name]), name
        else:
            torch.testing.assert_close(a[name], b[name], rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.parametrize("backend", ["eager", "fused"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("stack", ["plain", "batchnorm", "residual"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_effect(kind, stack, bidirectional, backend, skip_unless_able):
    skip_unless_able(backend)
    steps = kind.head == "every"
    loss = Loss(ar=0.3, tar=0.2, over_time="sum" if steps else "mean")
    data = LastTwo() if kind is Labelling else None
    problem = problem_of(kind, stack, loss, data, bidirectional=bidirectional, backend=backend)
    wanted = everything(problem, batch_of(kind))
    assert_same(everything(problem, batch_of(kind, NAN)), wanted, exactly=True)
    assert_same(everything(problem, batch_of(kind, NAN, further=3)), wanted)
    assert any(value.abs().sum() > 0 for name, value in wanted.items() if "weight_hh_l0" in name)


@pytest.mark.parametrize("hold", ["zero", "hold"])
def test_padding_has_no_effect_whatever_the_layer_says_at_masked_steps(hold):
    problem = problem_of(Multilabel, loss=Loss(ar=0.3, tar=0.2), masked_output=hold)
    wanted = everything(problem, batch_of(Multilabel))
    assert_same(everything(problem, batch_of(Multilabel, NAN, further=3)), wanted)


@pytest.mark.parametrize("symbol", [1, 2])
@pytest.mark.parametrize("encoder", ["embedding", "one_hot"])
def test_symbols_that_pad_have_no_effect(encoder, symbol):
    problem = problem_of(Labelling, encoder=encoder)
    batch = batch_of(Labelling)
    inputs = torch.randint(0, C, (B, T))
    padded = [batch._replace(inputs=inputs.masked_fill(PADDING, s)) for s in (0, symbol)]
    assert_same(*(everything(problem, b) for b in padded), exactly=True)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("kind", "over_time"), [*((kind, "mean") for kind in KINDS), (Labelling, "sum"), (Multilabel, "sum")]
)
def test_a_padded_batch_is_the_mean_of_its_sequences_one_by_one(kind, bidirectional, over_time):
    every = kind.head == "every"
    data = LastTwo() if kind is Labelling else None
    problem = problem_of(kind, loss=Loss(over_time=over_time), data=data, bidirectional=bidirectional)
    batch = batch_of(kind)
    alone = []
    for b, n in enumerate(LENGTHS):
        targets = batch.targets[b : b + 1, :n] if every else batch.targets[b : b + 1]
        alone.append(everything(problem, Batch(batch.inputs[b : b + 1, :n], targets)))
    found = everything(problem, batch)
    steps = LENGTHS.double() if every else torch.ones(B, dtype=torch.float64)
    for name, value in found.items():
        weights = steps
        if name == "train/accuracy" and kind is Labelling:
            weights = steps.clamp_max(2)
        if over_time == "sum" and not name.startswith("train/"):  # the sum over time, and the mean over sequences
            weights = torch.ones(B, dtype=torch.float64)
        mean = sum(w * one[name] for w, one in zip(weights, alone, strict=True)) / weights.sum()
        torch.testing.assert_close(value, mean, rtol=1e-11, atol=1e-13, msg=name)


def test_activation_regularisation_is_the_mean_square_over_valid_steps():
    batch = batch_of(Classification)
    plain, ar, tar = (problem_of(Classification, loss=loss) for loss in (None, Loss(ar=1.0), Loss(tar=1.0)))
    raw = plain.model.features(batch.inputs, LENGTHS).raw.detach().transpose(0, 1)
    squares = torch.cat([raw[b, :n].square().flatten() for b, n in enumerate(LENGTHS)])
    changes = torch.cat([(raw[b, 1:n] - raw[b, : n - 1]).square().flatten() for b, n in enumerate(LENGTHS)])
    base = everything(plain, batch)["loss"]
    torch.testing.assert_close(everything(ar, batch)["loss"] - base, squares.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(everything(tar, batch)["loss"] - base, changes.mean(), rtol=1e-12, atol=0)


def test_activation_regularisation_sees_the_output_after_dropout_and_its_change_before():
    problem = problem_of(Labelling, loss=Loss(ar=2.0, tar=3.0))
    problem.model.output_dropout = 0.5
    seen = []
    plain = problem.model.features
    problem.model.features = lambda *a: seen.append(plain(*a)) or seen[-1]
    batch = batch_of(Labelling)._replace(lengths=None)
    found = everything(problem, batch)
    features = seen[-1]
    assert (features.dropped == 0).any()
    change = torch.stack([b - a for a, b in pairwise(features.raw)])
    wanted = found["train/loss"] + 2 * features.dropped.square().mean() + 3 * change.square().mean()
    torch.testing.assert_close(found["loss"], wanted.detach(), rtol=1e-12, atol=0)


def test_a_change_over_time_needs_two_steps():
    problem = problem_of(Classification, loss=Loss(tar=1.0))
    batch = Batch(torch.randn(B, 1, C, dtype=torch.float64), torch.zeros(B, dtype=torch.int64))
    found = everything(problem, batch)
    assert found["loss"] == found["train/loss"]
    assert_same(everything(problem, batch._replace(lengths=torch.ones(B, dtype=torch.int64))), found)
    padded = batch._replace(inputs=longer(batch.inputs, 2, NAN), lengths=torch.ones(B, dtype=torch.int64))
    assert_same(everything(problem, padded), found)


@pytest.mark.parametrize("encoder", ["none", "embedding", "one_hot"])
@pytest.mark.parametrize("kind", [Classification, Labelling])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_are_answered_as_padded_ones(kind, encoder, bidirectional):
    model = problem_of(kind, encoder=encoder, bidirectional=bidirectional).model
    inputs = batch_of(kind).inputs if encoder == "none" else torch.randint(0, C, (B, T))

    def answer_and_gradients(*given):
        model.zero_grad()
        answer = model(*given)
        answer.square().sum().backward()
        return [answer, *(p.grad for p in model.parameters())]

    packed = pack_padded_sequence(inputs, LENGTHS, batch_first=True, enforce_sorted=False)
    for a, b in zip(answer_and_gradients(packed), answer_and_gradients(inputs, LENGTHS), strict=True):
        assert torch.equal(a, b)
