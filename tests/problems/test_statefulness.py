"""A language model that reads a text window by window is the one that reads it at once."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.nn import functional as F

from recurlab.config import TrainerConfig
from recurlab.data.data import Arrays, Data, Stream, StreamData
from recurlab.data.module import DataModule
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.language import Language
from recurlab.problems.multilabel import Multilabel
from recurlab.problems.optimizers import SGD
from recurlab.problems.schedulers import Constant
from recurlab.training.trainer import make_trainer, quiet

SYMBOLS, BEFORE = 6, 0
TEXT = np.random.default_rng(0).integers(0, SYMBOLS, 53)
STARTS = (0, 4, 5, 19, 40)


@dataclass(frozen=True)
class Text(StreamData):
    documents: bool = False

    @property
    def input_size(self):
        return SYMBOLS

    def split(self, name, seed, epoch):
        return Stream(TEXT, np.array(STARTS if self.documents else [0]), BEFORE)


def problem_of(data, cell="gru", kind=Language, **options):
    torch.manual_seed(0)
    encoder = {"encoder": "embedding", "encoder_size": 5} if kind is Language else {}
    layer = {"hidden_size": 7, "num_layers": 2, "cell": cell, "stateful": True, **options}
    model = SequenceModel(SYMBOLS, SYMBOLS, head="every", layer=layer, **encoder)
    return kind(model, SGD(lr=0.5), Constant(), data=data).double()


def trainer_of(*callbacks, **options):
    config = TrainerConfig(max_epochs=2, accelerator="cpu", precision="64-true", enable_progress_bar=False)
    return make_trainer(config, [*callbacks], logger=False, **options)


def outcome(problem):
    with quiet():
        return trainer_of().test(problem, DataModule(problem.data, seed=0), verbose=False)[0]


def nats(model, begin, end):
    """Return the loss of the symbols from `begin` to before `end`, read one at a time from a zero state."""
    layer, state, total = model.stack.rnn, None, 0.0
    with torch.no_grad():
        for place in range(begin, end):
            fresh = place == 0 or (model.documents and place in STARTS)
            symbol = torch.tensor([[BEFORE if fresh else TEXT[place - 1]]])
            if fresh:
                state = None
            layer.reset_states()
            output, state = layer(model.encoder(symbol), state)
            total += F.cross_entropy(model.head(output[0]), torch.tensor([TEXT[place]])).item()
    return total


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(("parts", "bptt"), [(1, 53), (1, 7), (3, 7), (4, 1), (5, 35)])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_perplexity_is_that_of_a_loop_over_each_part(cell, parts, bptt, documents):
    problem = problem_of(Text(eval_batch_size=parts, bptt=bptt, documents=documents), cell)
    found = outcome(problem)
    problem.model.documents = documents
    edges = [math.ceil(len(TEXT) * part / parts) for part in range(parts + 1)]
    loss = sum(nats(problem.model, *edges[part : part + 2]) for part in range(parts)) / len(TEXT)
    assert found["test/loss"] == pytest.approx(loss, rel=1e-12)
    assert found["test/perplexity"] == pytest.approx(math.exp(loss), rel=1e-10)
    assert found["test/bits"] == pytest.approx(loss / math.log(2), rel=1e-12)
    assert set(found) == {"test/loss", "test/perplexity", "test/bits"}


def test_a_text_of_documents_is_the_sum_over_the_documents():
    class Document(Text):
        def split(self, name, seed, epoch):
            return Stream(TEXT[begin:end], np.array([0]), BEFORE)

    total = 0.0
    for begin, end in zip(STARTS, [*STARTS[1:], len(TEXT)], strict=True):
        total += outcome(problem_of(Document(eval_batch_size=1, bptt=4)))["test/loss"] * (end - begin)
    whole = outcome(problem_of(Text(eval_batch_size=1, bptt=4, documents=True)))["test/loss"]
    assert whole * len(TEXT) == pytest.approx(total, rel=1e-12)
    assert outcome(problem_of(Text(eval_batch_size=1, bptt=4)))["test/loss"] != pytest.approx(whole, rel=1e-6)


def test_the_length_of_the_windows_matters_to_a_model_that_carries_nothing():
    losses = [outcome(problem_of(Text(eval_batch_size=1, bptt=n), stateful=False))["test/loss"] for n in (3, 53)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_gradient_of_a_window_goes_no_further_back(cell, documents):
    """Against torch's own layer, given the state that the windows before left, and none where a document begins."""
    problem = problem_of(Text(batch_size=3, bptt=5, documents=documents), cell)
    data = DataModule(problem.data, seed=0)
    data.setup()
    theirs = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](5, 7, num_layers=2, dtype=torch.float64)
    theirs.load_state_dict(problem.model.stack.rnn.state_dict())
    state = (torch.zeros(2, 3, 7, dtype=torch.float64),) * len(problem.model.stack.rnn.cell.states)
    problem.on_train_epoch_start()
    for batch in data.train_dataloader():
        problem.zero_grad()
        problem.training_step(batch, 0).backward()
        theirs.zero_grad()
        table = problem.model.encoder.table.weight.detach()
        fresh = torch.zeros_like(batch.inputs, dtype=torch.bool) if batch.resets is None else batch.resets
        outputs = []
        for symbols, begins in zip(batch.inputs.T, fresh.T, strict=True):
            state = tuple(s.masked_fill(begins[:, None], 0) for s in state)
            output, state = theirs(table[symbols][None], state if cell == "lstm" else state[0])
            state = state if cell == "lstm" else (state,)
            outputs.append(output)
        answers = problem.model.head(torch.cat(outputs))
        F.cross_entropy(answers.flatten(0, 1), batch.targets.T.flatten()).backward()
        for name, weight in problem.model.stack.rnn.named_parameters():
            torch.testing.assert_close(weight.grad, theirs.get_parameter(name).grad, rtol=1e-9, atol=1e-12)
        state = tuple(s.detach() for s in state)
        carried = problem.model.stack.rnn.carried_state
        torch.testing.assert_close(carried, state, rtol=1e-11, atol=1e-13)
        assert not carried[0].requires_grad


class Watching(Callback):
    """Notes what the layers carry before each batch of training, and the outcome of it."""

    def __init__(self):
        self.carried, self.weights = [], []

    def on_train_batch_start(self, trainer, problem, batch, batch_idx):
        self.carried.append([layer.carried_state for layer in problem.recurrent_layers()])

    def on_train_batch_end(self, trainer, problem, outputs, batch, batch_idx):
        self.weights.append([p.detach().clone() for p in problem.parameters()])


def fitted(problem, **options):
    watching = Watching()
    with quiet():
        trainer_of(watching, **options).fit(problem, DataModule(problem.data, seed=0))
    return watching


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_validation_in_the_middle_does_not_disturb_training(cell):
    data = Text(batch_size=3, eval_batch_size=2, bptt=4, documents=True)
    often, never = fitted(problem_of(data, cell), val_check_interval=2), fitted(problem_of(data, cell))
    assert len(often.weights) == len(never.weights) == 10
    for found, wanted in zip([*often.weights, *often.carried], [*never.weights, *never.carried], strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert (a is None) is (b is None)
            assert a is None or all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def test_an_epoch_starts_from_a_zero_state_and_each_batch_from_that_of_the_last():
    watching = fitted(problem_of(Text(batch_size=3, eval_batch_size=2, bptt=4)))
    carries = [[states is not None for states in layers] for layers in watching.carried]
    assert carries == ([[False]] + [[True]] * 4) * 2


def test_the_test_starts_from_a_zero_state_whatever_was_run_before():
    problem = problem_of(Text(eval_batch_size=2, bptt=4))
    first = outcome(problem)
    problem.model(torch.zeros(2, 9, dtype=torch.int64))
    assert outcome(problem) == first


@dataclass(frozen=True)
class Frames(Data):
    problem: ClassVar = "multilabel"

    def split(self, name, seed, epoch):
        rng = np.random.default_rng(1)
        inputs = rng.normal(size=(6, 5, SYMBOLS)).astype(np.float32)
        return Arrays(inputs, rng.integers(0, 2, (6, 5, SYMBOLS)).astype(np.float32))


def test_sequences_of_a_stateful_model_follow_one_another_in_their_places():
    """Batch after batch, as sequences of twice the length."""
    problem = problem_of(Frames(eval_batch_size=2), kind=Multilabel)
    found = outcome(problem)["test/nll"]
    arrays = Frames().split("test", 0, 0)
    inputs, targets = (torch.from_numpy(a).double() for a in arrays)
    problem.reset_states()
    joined = torch.cat(inputs.split(2), dim=1)
    with torch.no_grad():
        loss = F.binary_cross_entropy_with_logits(problem.model(joined), torch.cat(targets.split(2), dim=1))
    assert found == pytest.approx(loss.item() * SYMBOLS, rel=1e-12)
