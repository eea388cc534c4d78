"""A layer under torch.vmap is the layer in a loop, whichever of its arguments is mapped over."""

import pytest
import torch
from torch.testing import assert_close

import recurlab

N, T, B, FEATURES, H = 3, 5, 2, 3, 4
OPTIONS = {
    "one": {},
    "stacked": {"bidirectional": True, "num_layers": 2, "cell": "indy_gru"},
    "backwards": {"go_backwards": True, "masked_output": "hold"},
}


def drawn(layer):
    """Return N of each argument."""
    torch.manual_seed(2)
    return {
        "input": torch.randn(N, T, B, FEATURES),
        "hx": torch.randn(N, layer.num_layers * layer.num_directions, B, H),
        "lengths": torch.tensor([[5, 2], [3, 4], [1, 5]]),
        "mask": torch.rand(N, T, B) < 0.6,
        "resets": torch.rand(N, T, B) < 0.3,
    }


MAPPED = [("lengths",), ("mask",), ("resets",), ("hx",), ("input", "lengths", "resets"), ("lengths", "hx"),
          ("input", "hx", "mask", "resets")]  # fmt: skip


@pytest.mark.parametrize("mapped", MAPPED, ids=" ".join)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_sample_of_a_map_is_a_call(options, mapped):
    torch.manual_seed(1)
    layer = recurlab.RNN(FEATURES, H, **options)
    every = drawn(layer)
    x, axis = every["input"][0], -1 if len(mapped) == 1 else 0

    def run(*given):
        named = dict(zip(mapped, given, strict=True))
        output, state = layer(named.pop("input", x), **named)
        return output, state

    def gradient(*given):
        return torch.func.grad(lambda x: (layer(x, **dict(zip(mapped, given, strict=True)))[0] ** 2).sum())(x)

    given = [every[name].movedim(0, axis) for name in mapped]
    for function in (run,) if "input" in mapped else (run, gradient):
        found = torch.vmap(function, in_dims=axis)(*given)
        wanted = [function(*(every[name][k] for name in mapped)) for k in range(N)]
        parts = zip(*wanted, strict=True) if function is run else [wanted]
        for one, rows in zip(found if function is run else [found], parts, strict=True):
            assert_close(one, torch.stack(rows), rtol=1e-5, atol=1e-6)


def test_only_some_arguments_are_mapped():
    layer = recurlab.RNN(FEATURES, H)
    every = drawn(layer)
    found = torch.vmap(lambda x, n: layer(x, lengths=n)[0], in_dims=(None, 0))(every["input"][0], every["lengths"])
    wanted = [layer(every["input"][0], lengths=n)[0] for n in every["lengths"]]
    assert_close(found, torch.stack(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [0, T + 1])
def test_a_length_out_of_range_is_found_in_a_map(bad):
    layer, x = recurlab.RNN(FEATURES, H), torch.randn(T, B, FEATURES)
    with pytest.raises(recurlab.RecurlabError, match=rf"^lengths={bad}: each must be from 1 to T={T}$"):
        torch.vmap(lambda n: layer(x, lengths=n)[0])(torch.tensor([[5, 2], [bad, 4]]))
