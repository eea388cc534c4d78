import dataclasses
import inspect

import pytest
import torch

import recurlab
from recurlab.compose import compose
from recurlab.config import ModelConfig
from recurlab.errors import RecurlabError
from recurlab.models.sequence_model import SequenceModel
from recurlab.models.stacks import Steps
from recurlab.training.build import build_problem

T, B, C, O = 9, 4, 3, 5  # noqa: E741


def model_of(head="last", layers=1, dtype=torch.float64, **options):
    torch.manual_seed(0)
    outer = {key: options.pop(key) for key in ("encoder", "encoder_size", "stack") if key in options}
    layer = {"hidden_size": 6, "num_layers": layers, "cell": "gru", **options}
    return SequenceModel(C, O, head=head, layer=layer, **outer).to(dtype)


STACKS = [("plain", 2), ("batchnorm", 3), ("residual", 6)]


@pytest.mark.parametrize(("stack", "layers"), STACKS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_answers_have_their_shapes(stack, layers, bidirectional):
    x = torch.randn(B, T, C, dtype=torch.float64)
    for head, shape in (("last", (B, O)), ("every", (B, T, O))):
        assert model_of(head, layers, stack=stack, bidirectional=bidirectional)(x).shape == shape


@pytest.mark.parametrize(("stack", "layers"), STACKS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("encoder", ["none", "linear"])
def test_nothing_padded_reaches_an_answer_or_a_gradient(stack, layers, bidirectional, encoder):
    lengths = torch.tensor([9, 1, 4, 6])
    model = model_of("last", layers, stack=stack, bidirectional=bidirectional, encoder=encoder)
    x = torch.randn(B, T, C, dtype=torch.float64)
    padding = torch.arange(T) >= lengths[:, None]

    def answer_and_gradients(filler):
        model.zero_grad()
        answer = model(x.masked_fill(padding[..., None], filler), lengths)
        answer.square().sum().backward()
        return [answer, *(p.grad for p in model.parameters() if p.grad is not None)]

    state = {name: value.clone() for name, value in model.state_dict().items()}
    zero = answer_and_gradients(0.0)
    model.load_state_dict(state)  # running statistics
    nan = answer_and_gradients(float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(zero, nan, strict=True))
    assert all(torch.isfinite(a).all() for a in nan)


def test_each_padded_sequence_is_answered_as_if_it_were_alone():
    lengths = [9, 1, 4, 6]
    for bidirectional in (False, True):
        model = model_of(layers=2, bidirectional=bidirectional)
        x = torch.randn(B, T, C, dtype=torch.float64)
        alone = torch.cat([model(x[b : b + 1, :n]) for b, n in enumerate(lengths)])
        torch.testing.assert_close(model(x, torch.tensor(lengths)), alone, rtol=1e-10, atol=1e-10)


def test_the_last_answer_of_a_bidirectional_model_is_that_of_the_final_states():
    model = model_of(layers=1, bidirectional=True)
    x = torch.randn(B, T, C, dtype=torch.float64)
    _, state = model.stack.rnn(x.transpose(0, 1))
    wanted = model.head(torch.cat([state[0], state[1]], dim=-1))
    torch.testing.assert_close(model(x), wanted, rtol=1e-12, atol=1e-12)


def test_batch_norm_over_time_normalises_over_all_valid_steps():
    from recurlab.models.normalization import BatchNormOverTime

    norm = BatchNormOverTime(2).double()
    x, mask = torch.randn(T, B, 2, dtype=torch.float64) * 3 + 1, torch.rand(T, B) < 0.6
    out = norm(x, mask)
    valid = x[mask]
    wanted = (valid - valid.mean(0)) / (valid.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(out[mask], wanted)
    assert not out[~mask].any()
    torch.testing.assert_close(norm(x, None), norm(x, torch.ones(T, B, dtype=torch.bool)))


def test_a_residual_stack_with_silent_blocks_is_its_first_and_last_layer():
    model = model_of(layers=6, stack="residual", cell="rnn")
    stack, x = model.stack, torch.randn(T, B, C, dtype=torch.float64)
    with torch.no_grad():
        for layer in (2, 4):  # the second layer of each block says nothing
            for p in stack.layers[layer].parameters():
                p.zero_()
    model.eval()
    first = stack.layers[0](x)[0]
    last = stack.layers[5](stack.norms[5](first, None))[0]
    torch.testing.assert_close(stack(x, Steps()), stack.norms[0](last, None))


def test_variational_dropout_in_a_stack_has_one_mask_for_all_steps():
    model = model_of(layers=1, stack="batchnorm", dropout=0.5, variational=True)
    out = model.stack(torch.randn(T, B, C, dtype=torch.float64), Steps())
    dropped = out == 0
    assert dropped.any()
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))


def test_only_the_last_layer_of_a_stack_starts_as_the_last():
    from recurlab.layers.initializers import Constant

    options = {"recurrent_init": Constant(0.25), "last_recurrent_init": Constant(0.75), "cell": "indrnn"}
    for stack, layers in (("batchnorm", 3), ("residual", 4)):
        made = model_of(layers=layers, stack=stack, **options).stack.layers
        assert [layer.weight_hh_l0.unique().tolist() for layer in made] == [[0.25]] * (layers - 1) + [[0.75]]


def test_an_embedding_encodes_symbols_and_refuses_numbers():
    model = model_of(encoder="embedding", encoder_size=7)
    assert model(torch.randint(0, C, (B, T))).shape == (B, O)
    assert model.stack.rnn.input_size == 7
    with pytest.raises(RecurlabError, match="this encoder takes whole numbers"):
        model(torch.randn(B, T, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"head": "first"}, "head='first'"), ({"encoder_size": 4}, "encoder='none' has no size"),
     ({"encoder": "liner"}, "did you mean 'linear'"), ({"stack": "plane"}, "did you mean 'plain'"),
     ({"stack": "residual", "layers": 5}, "num_layers=5"), ({"stack": "residual", "layers": 2}, "num_layers=2")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RecurlabError, match=message):
        model_of(**options)


def test_the_options_that_a_config_has_of_the_layer_have_the_layers_defaults():
    arguments = inspect.signature(recurlab.RNN).parameters
    own = {field.name: field.default for field in dataclasses.fields(ModelConfig) if field.name in arguments}
    del own["hidden_size"]  # which the layer has no default for
    assert len(own) > 10
    assert own == {name: arguments[name].default for name in own}


def test_each_choice_of_a_config_reaches_its_weights():
    starts = {"input": 1.0, "recurrent": 2.0, "last_recurrent": 3.0, "bias": 4.0, "head": 5.0}
    words = [f"model.init.{key}={{name: constant, value: {value}}}" for key, value in starts.items()]
    words += ["model.num_layers=2", "model.init.gate_bias={update: 6}", "model.masked_output=hold"]
    model = build_problem(compose(words)[0]).model
    layer, units = model.stack.rnn, model.stack.rnn.hidden_size
    assert (layer.weight_ih_l1 == 1).all()
    assert (layer.weight_hh_l0 == 2).all()
    assert (layer.weight_hh_l1 == 3).all()
    assert (layer.bias_hh_l0[:units] == 4).all()
    assert (model.head.weight == 5).all()
    assert (layer.bias_ih_l1[units : 2 * units] == 6).all()
    assert layer.masked_output == "hold"
