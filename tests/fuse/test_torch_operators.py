"""The kernels as operators of PyTorch: their rules, compiled graphs, autocast and half precision."""

import pytest
import torch
import torch._dynamo.testing
import torch.utils.checkpoint
from torch.testing import assert_close

from recurlab.fuse.scan import NAMES
from variants import FEATURES, NOISE, VARIANTS, Model, draw, everything, make

pytestmark = pytest.mark.usefixtures("able")


# ---- as operators -------------------------------------------------------------------------------------------


def operator_arguments(variant, full, grad, batch_first=False):
    """Return what the layer gives the operator for a call, by listening in."""
    heard = []

    class Listen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.recurlab.scan.default:
                heard.append(args)
            return func(*args, **(kwargs or {}))

    options = {**NOISE, "bidirectional": True} if full else {"bias": False}
    layer = make(**variant, **options)
    x, flags = draw(4, 2, FEATURES), {}
    if full:
        # Nothing is masked: what is kept for the gradient is not written at masked steps, nor read there.
        flags = {"mask": torch.ones(4, 2, dtype=torch.bool), "resets": torch.rand(4, 2) < 0.5}
    with Listen(), torch.set_grad_enabled(grad):
        layer(x.transpose(0, 1).contiguous().transpose(0, 1) if batch_first else x, **flags)
    (args,) = heard
    kept = [
        a.detach().clone().requires_grad_(a.is_floating_point() and grad) if torch.is_tensor(a) else a for a in args
    ]
    dropout = NAMES.index("dropout")
    if kept[dropout] is not None:
        kept[dropout] = kept[dropout].detach()  # masks take no gradient
    return layer, tuple(kept)  # the layer keeps its cell known


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ["gru_before", "indy_lstm", "block"])
def test_the_operator_keeps_the_rules_of_torch(name, full, grad):
    alive, args = operator_arguments(VARIANTS[name], full, grad)
    torch.library.opcheck(torch.ops.recurlab.scan.default, args)
    assert alive.cell is not None


@pytest.mark.parametrize("name", ["gru", "indy_lstm"])
def test_the_operator_of_the_gradient_keeps_the_rules_of_torch(name):
    alive, args = operator_arguments(VARIANTS[name], True, True)
    results = torch.ops.recurlab.scan.default(*args)
    args = tuple(a.detach() if torch.is_tensor(a) else a for a in args)
    end, *results = (r.detach() for r in results)
    checks = ("test_schema", "test_faketensor")
    for d_end in (None, torch.ones_like(end)):
        rest = (torch.ones_like(results[0]), d_end, True)
        torch.library.opcheck(torch.ops.recurlab.scan_backward.default, (*args, *results, *rest), test_utils=checks)
    assert alive.cell is not None


# ---- compiled graphs ----------------------------------------------------------------------------------------


COMPILED = {
    "plain": ({}, {}),
    "mask": (
        {"bidirectional": True, "num_layers": 2},
        {"mask": torch.arange(4).unsqueeze(1) < torch.tensor([4, 1, 2])},
    ),
    "lengths": ({"bidirectional": True, "num_layers": 2}, {"lengths": torch.tensor([4, 1, 2])}),
    "noise": ({"zoneout": 0.3, "recurrent_dropout": 0.2}, {}),
    "batch_first": ({"batch_first": True, "bidirectional": True}, {}),
}


@pytest.mark.parametrize("setting", COMPILED)
@pytest.mark.parametrize("name", ["gru_before", "indy_lstm"])
def test_a_compiled_model_gives_the_numbers_of_the_plain_one(setting, name):
    torch.compiler.reset()
    options, flags = COMPILED[setting]
    model = Model(**VARIANTS[name], **options)
    x = draw(3, 4, FEATURES) if "batch_first" in options else draw(4, 3, FEATURES)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(everything(compiled, x, **flags), everything(model, x, **flags), rtol=1e-12, atol=1e-12)


def test_a_compiled_model_takes_sequences_of_any_length_in_one_graph():
    torch.compiler.reset()
    model = Model(bidirectional=True)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for steps in (4, 7, 9):
        x = draw(steps, 3, FEATURES)
        torch._dynamo.mark_dynamic(x, 0)
        assert_close(compiled(x), model(x), rtol=1e-12, atol=1e-12)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gru_before", "indy_lstm"])
def test_inductor_gives_the_numbers_of_the_plain_model(name):
    torch.compiler.reset()
    model, x = Model(**VARIANTS[name], bidirectional=True, num_layers=2), draw(4, 3, FEATURES)
    compiled = torch.compile(model, fullgraph=True)
    flags = {"mask": torch.arange(4).unsqueeze(1) < torch.tensor([4, 1, 2])}
    assert_close(everything(compiled, x, **flags), everything(model, x, **flags), rtol=1e-10, atol=1e-10)


# ---- precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_for_storage_as_in_the_reference(variant, dtype):
    found, wanted = (make(torch.float32, backend=backend, **variant) for backend in ("fused", "eager"))
    x = draw(6, 3, FEATURES, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        found, wanted = everything(found, x), everything(wanted, x)
    assert [f.dtype for f in found] == [w.dtype for w in wanted]
    assert found[0].dtype == dtype
    for f, w in zip(found, wanted, strict=True):
        assert_close(f.float(), w.float(), rtol=0, atol=8 * torch.finfo(dtype).eps * max(1.0, w.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_parameters_are_for_storage_as_in_the_reference(variant, dtype):
    found, wanted = (
        everything(make(dtype, backend=b, **variant), draw(6, 3, FEATURES).to(dtype)) for b in ("fused", "eager")
    )
    assert [f.dtype for f in found] == [dtype] * len(wanted)
    for f, w in zip(found, wanted, strict=True):
        assert_close(f.float(), w.float(), rtol=0, atol=8 * torch.finfo(dtype).eps * max(1.0, w.abs().max().item()))
