"""What stands around the layers: encoders, dropouts, tied weights, initialisers."""

import pytest
import torch
from torch.nn import functional as F

from recurlab.errors import RecurlabError
from recurlab.layers import initializers
from recurlab.models.encoders import EmbeddingEncoder
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.language import Language
from recurlab.problems.optimizers import SGD
from recurlab.problems.schedulers import Constant
from recurlab.training.checkpoint_file import load_weights

SYMBOLS, B, T = 11, 5, 30


def model_of(*, head="every", layer=(), **options):
    torch.manual_seed(0)
    options = {"encoder": "embedding", "encoder_size": 6, **options}
    layer = {"hidden_size": 6, "num_layers": 1, "cell": "gru", **dict(layer)}
    return SequenceModel(SYMBOLS, SYMBOLS, head=head, layer=layer, **options).double()


@pytest.fixture
def symbols():
    torch.manual_seed(1)
    return torch.randint(0, SYMBOLS, (B, T))


def test_embedding_dropout_drops_whole_symbols_in_all_places(symbols):
    encoder = model_of(embedding_dropout=0.4).encoder
    factors = encoder(symbols) / encoder.table(symbols)
    for symbol in range(SYMBOLS):
        found = factors[symbols == symbol]
        wanted = torch.full_like(found, 0 if found[0, 0] == 0 else 1 / 0.6)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert 0 < (factors == 0).sum() < factors.numel()
    encoder.eval()
    assert torch.equal(encoder(symbols), encoder.table(symbols))


def test_embedding_dropout_has_its_rate_and_a_mask_of_its_own_each_time():
    torch.manual_seed(0)
    encoder = EmbeddingEncoder(4000, 1, dropout=0.3)
    encoder.table.weight.data.fill_(1.0)
    masks = [encoder(torch.arange(4000)[None]) == 0 for _ in range(2)]
    assert masks[0].double().mean() == pytest.approx(0.3, abs=0.03)
    assert not torch.equal(*masks)


def test_a_dropped_symbol_has_no_gradient(symbols):
    model = model_of(embedding_dropout=0.5)
    model(symbols).sum().backward()
    silent = (model.encoder.table.weight.grad == 0).all(dim=1)
    assert 0 < silent.sum() < SYMBOLS


@pytest.mark.parametrize("rate", ["input_dropout", "output_dropout"])
@pytest.mark.parametrize("variational", [False, True])
def test_input_and_output_dropout_share_their_mask_over_time_where_variational(symbols, rate, variational):
    model = model_of(**{rate: 0.5}, layer={"variational": variational})
    seen = []
    layer = model.stack.rnn
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    features = model.features(symbols)
    before, after = (model.encoder(symbols.T), seen[0]) if rate == "input_dropout" else features[:2]
    dropped = after == 0
    torch.testing.assert_close(after, before.masked_fill(dropped, 0) * 2, rtol=1e-14, atol=0)
    assert 0.3 < dropped.double().mean() < 0.7
    shared = dropped[:1].expand_as(dropped)
    assert torch.equal(dropped, shared) == variational
    assert not torch.equal(dropped[:, :1].expand_as(dropped), dropped)  # each sequence has its own
    model.eval()
    features = model.features(symbols)
    assert torch.equal(features.raw, features.dropped)
    assert torch.equal(seen[-1], model.encoder(symbols.T))


def test_the_head_sees_the_output_after_dropout(symbols):
    for head in ("every", "last"):
        model = model_of(head=head, output_dropout=0.5)
        features = model.features(symbols)
        wanted, found = model.head(features.dropped.transpose(0, 1)), model.answers(features)
        # A product of fewer rows, or of these in another order, may round otherwise.
        torch.testing.assert_close(found, wanted if head == "every" else wanted[:, -1], rtol=1e-12, atol=1e-14)


def test_tied_weights_are_one_parameter_with_both_gradients(symbols):
    tied, free = model_of(tie_weights=True), model_of()
    assert tied.head.weight is tied.encoder.table.weight
    names = [name for name, _ in free.named_parameters()]
    assert [name for name, _ in tied.named_parameters()] == [name for name in names if name != "head.weight"]
    free.load_state_dict(tied.state_dict())
    for model in (tied, free):
        F.cross_entropy(model(symbols).flatten(0, 1), symbols.flatten()).backward()
    both = free.encoder.table.weight.grad + free.head.weight.grad
    torch.testing.assert_close(tied.head.weight.grad, both, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tied_weights_survive_a_checkpoint(tmp_path, dtype):
    def problem():
        return Language(model_of(tie_weights=True), SGD(lr=0.1), Constant())

    kept, other = problem().to(dtype), problem()
    with torch.no_grad():
        kept.model.head.weight.normal_()
    torch.save({"state_dict": kept.state_dict()}, tmp_path / "best.ckpt")
    load_weights(other, tmp_path / "best.ckpt")
    weight = other.model.head.weight
    assert weight is other.model.encoder.table.weight
    assert torch.equal(weight, kept.model.head.weight)
    optimizer = other.configure_optimizers()
    F.cross_entropy(
        other.model(torch.zeros(1, 3, dtype=torch.int64)).flatten(0, 1).float(), torch.ones(3).long()
    ).backward()
    optimizer.step()
    assert torch.equal(other.model.head.weight, other.model.encoder.table.weight)
    assert not torch.equal(other.model.head.weight, kept.model.head.weight)


@pytest.mark.parametrize(
    "options",
    [{"encoder": "one_hot", "encoder_size": None}, {"encoder_size": 5}, {"layer": {"bidirectional": True}}],
)
def test_weights_that_cannot_be_tied_are_refused(options):
    with pytest.raises(RecurlabError, match=r"tie_weights=True: needs encoder='embedding' with 11 symbols and enc"):
        model_of(tie_weights=True, **options)


def test_embedding_dropout_needs_an_embedding():
    with pytest.raises(RecurlabError, match=r"embedding_dropout=0\.1: needs encoder='embedding', not 'one_hot'"):
        model_of(encoder="one_hot", encoder_size=None, embedding_dropout=0.1)


def test_encoder_and_head_start_as_they_are_told():
    start = {"encoder_init": initializers.Uniform(-0.01, 0.01), "head_init": initializers.Constant(0.5)}
    model, plain = model_of(**start), model_of()
    assert model.encoder.table.weight.abs().max() <= 0.01
    assert model.encoder.table.weight.unique().numel() > SYMBOLS
    assert model.head.weight.unique().tolist() == [0.5]
    assert not model.head.bias.any()
    assert plain.head.bias.any()
    for name, weight in model.stack.named_parameters():  # layers are no concern of theirs
        assert weight.abs().max() > 0.01, name


def test_tied_weights_start_as_the_encoder():
    model = model_of(tie_weights=True, encoder_init=initializers.Constant(0.25))
    assert model.head.weight.unique().tolist() == [0.25]


def test_a_linear_encoder_starts_as_it_is_told():
    model = model_of(encoder="linear", encoder_size=4, encoder_init=initializers.Constant(0.25))
    assert model.encoder.map.weight.unique().tolist() == [0.25]


def test_a_one_hot_encoder_has_no_weights_and_the_dtype_of_the_model(symbols):
    for dtype in (torch.float64, torch.bfloat16):
        model = model_of(encoder="one_hot", encoder_size=None).to(dtype)
        vectors = model.encoder(symbols)
        assert vectors.dtype == dtype
        assert torch.equal(vectors, F.one_hot(symbols, SYMBOLS).to(dtype))
    assert not list(model.encoder.parameters())
    assert not [name for name in model.state_dict() if name.startswith("encoder")]


def test_a_one_hot_encoder_before_a_layer_is_an_embedding_of_its_columns(symbols):
    one_hot = model_of(encoder="one_hot", encoder_size=None)
    wide = model_of(encoder_size=SYMBOLS)
    wide.load_state_dict({**one_hot.state_dict(), "encoder.table.weight": torch.eye(SYMBOLS)})
    torch.testing.assert_close(one_hot(symbols), wide(symbols), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [("one_hot", "encoder='one_hot' has a size"), ("none", "encoder='none' has no size")],
)
def test_an_encoder_without_a_size_of_choice_refuses_one(encoder, message):
    with pytest.raises(RecurlabError, match=f"encoder_size=4: {message}"):
        model_of(encoder=encoder, encoder_size=4)


@pytest.mark.parametrize("encoder", ["one_hot", "embedding"])
def test_symbols_are_whole_numbers_and_numbers_no_symbols(encoder, symbols):
    with pytest.raises(RecurlabError, match=r"this encoder takes whole numbers \(T, B\)"):
        model_of(encoder=encoder, encoder_size=None)(torch.randn(B, T, SYMBOLS, dtype=torch.float64))
    for numbers in ("none", "linear"):
        with pytest.raises(RecurlabError, match="symbols need the encoder 'embedding' or 'one_hot'"):
            model_of(encoder=numbers, encoder_size=None)(symbols)


def test_an_encoder_without_weights_has_no_initialiser():
    with pytest.raises(RecurlabError, match=r"encoder_init=.*: this encoder has no weights"):
        model_of(encoder="one_hot", encoder_size=None, encoder_init=initializers.Constant(0.25))
