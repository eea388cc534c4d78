import math

import pytest
import torch
from torch import nn

from recurlab.data.batches import Batch
from recurlab.errors import RecurlabError
from recurlab.layers.constraints import MaxAbs
from recurlab.layers.regularizers import L2
from recurlab.layers.rnn import RNN
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems import PROBLEMS
from recurlab.problems.classification import Classification
from recurlab.problems.metrics import MODES, best_of, mode_of, sign_of
from recurlab.problems.optimizers import SGD, Adam, AdamW, RMSprop
from recurlab.problems.regression import Regression
from recurlab.problems.schedulers import Constant, Cosine, Plateau, Step


def problem_of(kind=Regression, optimizer=None, scheduler=None, **layer):
    torch.manual_seed(0)
    options = {"hidden_size": 4, "num_layers": 1, "cell": "indrnn", **layer}
    model = SequenceModel(2, 3, head="last", layer=options)
    return kind(model, optimizer or SGD(lr=0.5), scheduler or Constant())


def test_regression_is_the_mean_squared_error():
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [5.0]])
    loss, metrics, items, _ = problem_of().measure(outputs, targets)
    assert items == 2
    assert loss.item() == metrics["mse"].item() == 2.5


@pytest.mark.parametrize(
    ("name", "monitor", "mode"),
    [("regression", "valid/mse", "min"), ("classification", "valid/accuracy", "max"),
     ("labelling", "valid/accuracy", "max"), ("multilabel", "valid/nll", "min"),
     ("language", "valid/perplexity", "min")],
)  # fmt: skip
def test_each_problem_says_by_which_metric_it_is_judged_and_which_values_are_better(name, monitor, mode):
    problem = problem_of(PROBLEMS[name])
    assert (problem.monitor, problem.mode) == (monitor, mode)


def test_the_best_of_some_values_is_the_largest_or_the_smallest():
    assert [best_of([0.5, 0.75, 0.25], mode) for mode in MODES] == [0.25, 0.75]
    assert [best_of([], mode) for mode in MODES] == [None, None]
    assert [max([0.5, 0.75, 0.25], key=lambda value: sign_of(mode) * value) for mode in MODES] == [0.25, 0.75]
    assert [mode_of(name) for name in ("valid/accuracy", "accuracy", "valid/loss", "bits")] == [
        "max",
        "max",
        "min",
        "min",
    ]


def test_targets_of_another_shape_are_refused_instead_of_broadcast():
    with pytest.raises(RecurlabError, match=r"targets=\(2,\): the model answers \(2, 1\)"):
        problem_of().measure(torch.zeros(2, 1), torch.zeros(2))


def test_classification_is_cross_entropy_and_accuracy():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    loss, metrics, items, _ = problem_of(Classification).measure(outputs, torch.tensor([0, 0, 0]))
    assert items == 3
    wanted = [math.log(1 + math.exp(-2)), math.log(2), math.log(1 + math.exp(1))]
    assert loss.item() == pytest.approx(sum(wanted) / 3)
    assert metrics["accuracy"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("spec", [SGD(lr=0.1, weight_decay=0.5), AdamW(lr=0.1, weight_decay=0.5)])
def test_weight_decay_leaves_diagonals_and_biases_alone(spec):
    problem = problem_of(optimizer=spec)
    optimizer = problem.configure_optimizers()
    before = {name: p.detach().clone() for name, p in problem.named_parameters()}
    for p in problem.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {name for name, p in problem.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"model.stack.rnn.weight_ih_l0", "model.head.weight"}


def test_weight_decay_reaches_a_dense_recurrence():
    problem = problem_of(optimizer=SGD(lr=0.1, weight_decay=0.5), cell="gru")
    decayed, spared = problem.configure_optimizers().param_groups
    assert problem.model.stack.rnn.weight_hh_l0 in set(decayed["params"])
    assert spared["weight_decay"] == 0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(problem.parameters()))


@pytest.mark.parametrize(
    ("spec", "kind"),
    [(Adam(lr=0.3, betas=(0.5, 0.6)), torch.optim.Adam), (AdamW(), torch.optim.AdamW),
     (RMSprop(alpha=0.7), torch.optim.RMSprop), (SGD(momentum=0.9, nesterov=True), torch.optim.SGD)],
)  # fmt: skip
def test_an_optimizer_is_torchs_with_its_options(spec, kind):
    optimizer = spec.build(nn.Linear(2, 2))
    assert type(optimizer) is kind
    for name, value in vars(spec).items():
        assert optimizer.param_groups[0][name] == value


def rates(spec, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = spec.build(optimizer, "valid/mse", "min")["scheduler"]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("after", "wanted"), [(0, [2, 2, 0.2, 0.2, 0.02]), (1, [2, 2, 2, 0.2, 0.2, 0.02]), (3, [2] * 5 + [0.2, 0.2, 0.02])]
)
def test_the_step_schedule_counts_from_what_it_is_to_come_after(after, wanted):
    assert rates(Step(every=2, factor=0.1, after=after), len(wanted)) == pytest.approx(wanted)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_the_step_schedule_counts_epochs_or_steps(interval):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    assert Step(interval=interval).build(optimizer, "valid/mse", "min")["interval"] == interval


def test_the_cosine_schedule_ends_at_its_final_rate_and_stays():
    wanted = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * min(t, 4) / 4)) / 2) for t in range(6)]
    assert rates(Cosine(over=4, final=0.1), 6) == pytest.approx(wanted)


def test_the_plateau_schedule_follows_the_validation_metric():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    built = Plateau(factor=0.5, patience=1).build(optimizer, "valid/accuracy", "max")
    assert built["monitor"] == "valid/accuracy"
    for accuracy in (0.5, 0.6, 0.6, 0.55):  # better, then twice not
        built["scheduler"].step(accuracy)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: Adam(lr=0), "optimizer.lr=0"), (lambda: Adam(betas=(0.9, 1.5)), "optimizer.betas=1.5"),
     (lambda: SGD(nesterov=True), "optimizer.nesterov=True"),
     (lambda: SGD(weight_decay=-1), "optimizer.weight_decay=-1"), (lambda: Step(every=0), "scheduler.every=0"),
     (lambda: Step(interval="day"), "scheduler.interval='day'"),
     (lambda: Plateau(factor=0), "scheduler.factor=0")],
)  # fmt: skip
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(RecurlabError, match=message):
        make()


def test_the_constraint_holds_after_each_step_of_the_optimizer():
    problem = problem_of(recurrent_constraint=MaxAbs(0.3))
    optimizer = problem.configure_optimizers()
    layer: RNN = problem.model.stack.rnn

    def closure():
        layer.weight_hh_l0.grad = torch.full_like(layer.weight_hh_l0, -7.0)

    problem.optimizer_step(0, 0, optimizer, closure)
    assert layer.weight_hh_l0.tolist() == pytest.approx([0.3] * 4)


@pytest.mark.parametrize("stack", ["plain", "batchnorm"])
def test_the_layers_penalties_are_part_of_what_is_minimized_and_not_of_what_is_logged(stack):
    steps = {}
    batch = Batch(torch.randn(5, 3, 2), torch.randn(5, 3))
    for value in (0.0, 0.5):
        torch.manual_seed(0)
        layer = {"hidden_size": 4, "num_layers": 2, "recurrent_regularizer": L2(value)}
        problem = Regression(SequenceModel(2, 3, head="last", layer=layer, stack=stack), SGD(), Constant())
        steps[value] = problem.training_step(batch, 0).item(), problem.last_measured()
    squares = sum(layer.weight_hh_l0.square().sum() for layer in problem.recurrent_layers())
    if stack == "plain":
        squares = squares + problem.model.stack.rnn.weight_hh_l1.square().sum()
    assert steps[0.5][0] - steps[0.0][0] == pytest.approx(0.5 * squares.item())
    assert steps[0.5][1] == steps[0.0][1]


def test_the_carried_state_is_part_of_a_checkpoint():
    problem, other = problem_of(stateful=True), problem_of(stateful=True)
    problem.model(torch.randn(5, 3, 2))
    checkpoint = {}
    problem.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    kept = problem.model.stack.rnn.carried_state
    assert [[s.shape for s in each] for each in checkpoint["carried_states"][0]] == [[s.shape] for s in kept]
    assert torch.equal(other.model.stack.rnn.carried_state[0], kept[0])


@pytest.mark.parametrize(("batch", "kept_as"), [(5, list), (4, torch.stack)], ids=["list", "tensor of once"])
def test_one_process_takes_up_the_states_of_two(batch, kept_as):
    """Of a batch they have every other sequence."""
    whole = torch.randn(1, batch, 4)
    problem = problem_of(stateful=True)
    problem.on_load_checkpoint({"carried_states": [(kept_as([whole[:, 0::2], whole[:, 1::2]]),)]})
    assert torch.equal(problem.model.stack.rnn.carried_state[0], whole)
