"""What a layer adds to the loss for its weights and outputs."""

import copy
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import recurlab
from recurlab.errors import RecurlabError
from recurlab.layers.regularizers import L1, L1L2, L2, Orthogonal, Regularizer

KINDS = {"input": "weight_ih", "recurrent": "weight_hh", "bias": "bias"}


def of_kind(layer, kind):
    return [p for name, p in layer.named_parameters() if name.startswith(KINDS[kind])]


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_of_a_kind_and_no_others_are_penalized(variant, kind, make, same):
    layer = make(num_layers=2, bidirectional=True, **variant, **{f"{kind}_regularizer": L1L2(0.3, 0.02)})
    weights = of_kind(layer, kind)
    same(layer.penalty(), sum(0.3 * w.abs().sum() + 0.02 * w.square().sum() for w in weights))
    layer.penalty().backward()
    for name, p in layer.named_parameters():
        assert (p.grad is not None) == name.startswith(KINDS[kind])
        if p.grad is not None:
            same(p.grad, (0.3 * p.sign() + 0.04 * p).detach())


def test_penalties_add_up(make, same):
    layer = make(input_regularizer=L1(0.5), recurrent_regularizer=L2(0.25), bias_regularizer=L1(2.0))
    wanted = 0.5 * layer.weight_ih_l0.abs().sum() + 0.25 * layer.weight_hh_l0.square().sum()
    same(layer.penalty(), wanted + 2 * (layer.bias_ih_l0.abs().sum() + layer.bias_hh_l0.abs().sum()))


def test_without_regularizers_the_penalty_is_zero(make):
    penalty = make(bias=False).penalty()
    assert penalty.shape == ()
    assert not penalty


def test_orthogonal_is_the_mean_cosine_between_the_columns(make, same):
    layer = make(recurrent_regularizer=Orthogonal(0.7))
    w = layer.weight_hh_l0.detach()
    cosines = [abs(w[:, i] @ w[:, j]) / (w[:, i].norm() * w[:, j].norm()) for i in range(6) for j in range(6) if i != j]
    same(layer.penalty().detach(), 0.7 * sum(cosines) / 30)


def test_orthogonal_goes_head_by_head(make, same):
    options = {"recurrence": "block", "recurrent_regularizer": Orthogonal(1.0)}
    layer, dense = make(heads=2, **options), make(heads=1, **options, units=3)
    by_head = layer.weight_hh_l0.detach().view(3, 2, 3, 3)
    means = []
    for head in range(2):
        with torch.no_grad():
            dense.weight_hh_l0.copy_(by_head[:, head].reshape(9, 3))
        means.append(dense.penalty())
    same(layer.penalty(), sum(means) / 2)


def test_a_matrix_with_orthogonal_columns_costs_nothing(make):
    layer = make(input_regularizer=Orthogonal())
    with torch.no_grad():
        torch.nn.init.orthogonal_(layer.weight_ih_l0)
    assert layer.penalty() < 1e-15


@pytest.mark.parametrize("options", [{"recurrence": "diagonal", "recurrent_regularizer": Orthogonal()},
                                     {"bias_regularizer": Orthogonal()}])  # fmt: skip
def test_what_has_no_columns_can_not_be_orthogonal(options, make):
    with pytest.raises(
        RecurlabError, match=r"orthogonal: needs a matrix of two or more columns, not \(3, [16], [16], 1\)"
    ):
        make(**options).penalty()


def test_the_outputs_of_each_layer_are_penalized_in_training_once_a_call(make, same):
    layer = make(num_layers=2, activity_regularizer=L2(0.5))
    x = torch.randn(5, 3, 5, dtype=torch.float64)
    lower = recurlab.RNN(5, 6, dtype=torch.float64)
    lower.load_state_dict({name: p for name, p in layer.state_dict().items() if name.endswith("l0")})
    output, _ = layer(x)
    found = layer.penalty()
    same(found, 0.5 * (output.square().sum() + lower(x)[0].square().sum()) / 3)
    found.backward()
    assert all(p.grad.any() for p in layer.parameters())
    assert layer.penalty() == 0
    layer.eval()(x)
    assert layer.penalty() == 0


def test_a_regularizer_of_ones_own(make, same):
    class Mean(Regularizer):
        def __call__(self, weight):
            assert weight.shape == (3, 1, 6, 5)
            return weight.mean() ** 2

    layer = make(input_regularizer=Mean())
    same(layer.penalty(), layer.weight_ih_l0.mean() ** 2)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [(lambda: L1(-1), "l1.value=-1"), (lambda: L2(float("nan")), "l2.value=nan"),
     (lambda: L1L2(l2=-0.5), "l1_l2.l2=-0.5"), (lambda: Orthogonal("a"), "orthogonal.value='a'"),
     (lambda: recurlab.RNN(2, 3, input_regularizer=0.1), "input_regularizer=0.1: must be an instance of Regularizer"),
     (lambda: recurlab.RNN(2, 3, bias_constraint="max_abs"), "bias_constraint='max_abs': must be an instance of Con"),
     (lambda: recurlab.RNN(2, 3, last_recurrent_init=1), "last_recurrent_init=1: must be an instance of Initializer"),
     (lambda: recurlab.RNN(2, 3, activity_regularizer=1), "activity_regularizer=1: must be an instance of Regul")],
)  # fmt: skip
def test_values_out_of_range_are_refused(make_it, message):
    with pytest.raises(RecurlabError, match=message):
        make_it()


def test_a_layer_can_be_copied_while_a_penalty_is_pending_which_no_copy_has(make, same):
    layer, fresh = (make(activity_regularizer=L1(), recurrent_regularizer=L2()) for _ in range(2))
    parametrized = make(activity_regularizer=L1(), recurrent_regularizer=L2())
    torch.nn.utils.parametrize.register_parametrization(parametrized, "weight_ih_l0", torch.nn.Identity())
    x = torch.ones(2, 2, 5, dtype=torch.float64)
    layer(x), parametrized(x)
    averaged = AveragedModel(layer)
    averaged.update_parameters(layer)
    assert ForkingPickler.dumps(layer)
    for each in (copy.deepcopy(layer), copy.deepcopy(parametrized), copy.copy(layer), averaged.module):
        same(each.penalty(), fresh.penalty())
        same(each(x), layer(x))
    assert layer.penalty() > fresh.penalty()


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_a_penalty_of_the_outputs_under_a_checkpoint_is_right_or_refused(backend, make, same, skip_unless_able):
    skip_unless_able(backend)
    x = torch.ones(4, 2, 5, dtype=torch.float64, requires_grad=True)
    layer, other = (make(activity_regularizer=L2(), backend=backend) for _ in range(2))
    (checkpoint(layer, x, use_reentrant=False)[0].sum() + layer.penalty()).backward()
    (other(x)[0].sum() + other.penalty()).backward()
    same([p.grad for p in layer.parameters()], [p.grad for p in other.parameters()])
    assert layer.penalty() == 0  # that of the second run is no new one
    loss = checkpoint(layer, x, use_reentrant=True)[0].sum() + layer.penalty()
    with pytest.raises(RecurlabError, match=r"activity_regularizer=L2\(value=0.01\): .* unless .* use_reentrant=False"):
        loss.backward()
