"""Each operation that a step may use: the kernel gives the numbers of PyTorch, everywhere that PyTorch gives any."""

from functools import cache

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import recurlab
from recurlab.fuse.cpu import kernel as cpu
from recurlab.fuse.cpu.source import cpu_source

SIZES = (1, 5, 33)  # less than a vector, not a whole one, several and a rest
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
INEXACT = {"hardsigmoid": 1e-7}  # PyTorch's own gradient takes 1/6 in float32
BATCH = 2

ANYWHERE = {
    "add": lambda v: v + 1.5 + v,
    "sub": lambda v: 1.5 - v - 0.25,
    "mul": lambda v: 0.75 * v * v,
    "div": lambda v: v / 3 + 1 / (v * v + 1),
    "neg": lambda v: -v,
    "alpha": lambda v: torch.add(v, v, alpha=0.5) + torch.sub(v, 2.0, alpha=0.25),
    "rsub": lambda v: torch.rsub(v, 2.0, alpha=0.5),
    "lt": lambda v: torch.where(v < 0.3, v, 0.5 * v),
    "le": lambda v: torch.where(v <= 0.3, 0.5 * v, v),
    "gt": lambda v: torch.where(v > 0.3, v, -v),
    "ge": lambda v: torch.where(v >= 0.25 * v * v, v, 2.0),
    "eq": lambda v: torch.where(v == v, v, 0.0),
    "ne": lambda v: torch.where(v != v.abs(), 0.25, v),
    "comparison_times_number": lambda v: (v > 0) * 0.5 + (v < 0.5) * v,
    "comparison_to_float": lambda v: (v > 0).to(v.dtype) - (v < 0.5).float().to(v.dtype) * v,
    "logic": lambda v: torch.where(((v > 0) & ~(v > 1)) | (v < -1), v, 0.5 * v),
    "logical": lambda v: torch.where(torch.logical_xor(v > 0, torch.logical_not(v < 1)), v, 0.5 * v),
    "bool_xor": lambda v: torch.where((v > 0) ^ (v > 0.5), v, -v),
    "masked_fill": lambda v: v.masked_fill(v > 0.5, 0.5),
    "minimum": lambda v: torch.minimum(v, 0.3 + 0.1 * v),
    "maximum": lambda v: torch.maximum(v * v, v),
    "clamp": lambda v: v.clamp(-0.5, 0.75),
    "clamp_one_side": lambda v: v.clamp(min=-0.5) + v.clamp(max=0.25),
    "clamp_tensors": lambda v: torch.clamp(v, -0.5 * v.abs(), 0.25 + 0 * v),
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "relu6": lambda v: F.relu6(v * 7),
    "leaky_relu": lambda v: F.leaky_relu(v, 0.2),
    "hardtanh": lambda v: F.hardtanh(v, -0.5, 0.75),
    "hardsigmoid": lambda v: F.hardsigmoid(3 * v),
    "hardswish": lambda v: F.hardswish(3 * v),
    "elu": lambda v: F.elu(v, 0.7),
    "celu": lambda v: F.celu(v, 0.7),
    "selu": F.selu,
    "softplus": lambda v: F.softplus(v, beta=2, threshold=3),
    "softsign": F.softsign,
    "silu": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
    "tanhshrink": F.tanhshrink,
    "threshold": lambda v: F.threshold(v, 0.1, -0.5),
    "exp": torch.exp,
    "expm1": torch.expm1,
    "square": torch.square,
    "power_2": lambda v: v**2,
    "power_3": lambda v: v**3,
    "power_4": lambda v: v**4,
    "power_of_number": lambda v: 1.7**v,
    "abs": torch.abs,
    "sign": lambda v: v.sign() * 0.5 + 0.25 * v,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda v: torch.tan(0.4 * v),
    "floor": lambda v: torch.floor(3 * v) + 0.0 * v,
    "ceil": lambda v: torch.ceil(3 * v),
    "trunc": lambda v: torch.trunc(3 * v),
    "round": lambda v: torch.round(3 * v),
    "frac": lambda v: torch.frac(3 * v),
    "lerp_by_number": lambda v: torch.lerp(v, v * v, 0.3),
    "lerp_by_tensor": lambda v: torch.lerp(v, 0.5 * v, torch.sigmoid(v)),
    "addcmul": lambda v: torch.addcmul(v, v, v, value=0.5),
    "addcdiv": lambda v: torch.addcdiv(v, v, v * v + 1, value=0.5),
    "zeros_and_ones_like": lambda v: v * torch.ones_like(v) + torch.zeros_like(v) + torch.full_like(v, 0.25),
    "detach": lambda v: v * v.detach(),
}
# Of positive numbers
POSITIVE = {
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "power_half": lambda v: v**0.5,
    "power_minus_half": lambda v: v**-0.5,
    "power_minus_1": lambda v: v**-1,
    "power_minus_2": lambda v: v**-2,
    "power_2_and_a_half": lambda v: v**2.5,
    "power_of_tensors": lambda v: v ** (0.5 * v),
}

FUNCTIONS = {**ANYWHERE, **POSITIVE}
GROUP = 8  # operations of a kernel: to compile one for each would take minutes
GROUPS = [tuple(names)[k : k + GROUP] for names in (ANYWHERE, POSITIVE) for k in range(0, len(names), GROUP)]
GROUP_OF = {name: group for group in GROUPS for name in group}


@pytest.fixture(scope="module", autouse=True)
def _kernels_without_noise():
    """Leave out what is for masks and noise: no operation is there alone, and it is most of what is compiled."""

    def quiet(*given):
        text = cpu_source(*given)
        asks = (
            "if (is_noisy(p)) f(Is<true>{}, Is<true>{});\n    else if (p.rows) f(Is<false>{}, Is<true>{});\n    else f("
        )
        assert given[2] != "diagonal" or asks in text
        return text.replace(asks, "f(")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "cpu_source", quiet)
        yield


@cache
def cell_of(names):
    """Return a cell with a gate and a state for each operation."""

    def step(self, x, state, recur):
        given = zip(names, x, recur, state, strict=True)
        return tuple(FUNCTIONS[name](of_x + of_state(h)) for name, of_x, of_state, h in given)

    return type("Several", (recurlab.Cell,), {"gates": names, "states": names, "step": step})()


@cache
def results(names, backend, dtype, size):
    """Return by operation its final states and the gradients of input weight, recurrent weight, bias and start."""
    torch.manual_seed(size)
    layer = recurlab.RNN(2, size, cell=cell_of(names), recurrence="diagonal", backend=backend, dtype=dtype)
    x = torch.randn(3, BATCH, 2, dtype=dtype)
    start = [torch.randn(1, BATCH, size, dtype=dtype) for _ in names]
    if names[0] in POSITIVE:  # one step from positive numbers, for the next would start at a negative one
        x, start = x[:1].abs(), [0.5 + s.abs() for s in start]
        layer.load_state_dict({key: 0.1 + weight.abs() for key, weight in layer.state_dict().items()})
    finals = layer(x, tuple(s.requires_grad_() for s in start))[1]
    sum((final * torch.randn(final.shape, dtype=dtype)).sum() for final in finals).backward()
    weights = [layer.weight_ih_l0.grad, layer.weight_hh_l0.grad, layer.bias_hh_l0.grad]
    parts = [weight.chunk(len(names)) for weight in weights]
    return {name: (finals[k].detach(), start[k].grad, *(p[k] for p in parts)) for k, name in enumerate(names)}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_and_gradients_are_those_of_the_reference(name, dtype, skip_unless_able):
    skip_unless_able("fused")
    for size in SIZES:
        wanted = results(GROUP_OF[name], "eager", dtype, size)[name]
        found = results(GROUP_OF[name], "fused", dtype, size)[name]
        assert all(w.isfinite().all() for w in wanted), "the case says nothing"
        tolerance = max(TOLERANCE[dtype], INEXACT.get(name, 0))
        for f, w in zip(found, wanted, strict=True):
            assert_close(f, w, rtol=0, atol=tolerance * max(1.0, w.abs().max().item()))


@cache
def at_special_points(names, backend, dtype):
    """Return by operation its values and derivatives at `special`, each point a unit of its own."""
    point = special(dtype)
    options = {"recurrence": "diagonal", "bias": False, "dtype": dtype}
    layer = recurlab.RNN(1, len(point), cell=cell_of(names), backend=backend, **options)
    layer.load_state_dict(
        {"weight_ih_l0": torch.zeros_like(layer.weight_ih_l0), "weight_hh_l0": torch.ones_like(layer.weight_hh_l0)}
    )
    start = [point.clone().view(1, 1, -1).requires_grad_() for _ in names]
    finals = layer(torch.zeros(1, 1, 1, dtype=dtype), tuple(start))[1]
    sum(final.sum() for final in finals).backward()
    return {name: (final.flatten(), s.grad.flatten()) for name, final, s in zip(names, finals, start, strict=True)}


def special(dtype):
    huge, inf, nan = torch.finfo(dtype).max / 4, float("inf"), float("nan")
    return torch.tensor([0, 0.5, nan, -0.0, 1e3, inf, -0.5, huge, -inf, -1e3, -huge, nan, 1, -1], dtype=dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_special_values_stay_in_their_unit_and_are_those_of_the_reference(name, dtype, skip_unless_able):
    skip_unless_able("fused")
    wanted, found = (at_special_points(GROUP_OF[name], backend, dtype)[name] for backend in ("eager", "fused"))
    single, double = (at_special_points(GROUP_OF[name], "eager", kind)[name] for kind in (torch.float32, torch.float64))
    tolerance = max(TOLERANCE[dtype], INEXACT.get(name, 0))
    for f, w, one, other in zip(found, wanted, single, double, strict=True):
        # Where the reference contradicts itself, as at gelu(inf), it says nothing.
        defined = torch.isclose(one.double(), other, rtol=1e-3, equal_nan=True) | (special(dtype).abs() > 1e3)
        defined |= one.isinf() & other.isinf()
        defined &= one.isnan() == other.isnan()
        assert_close(f[defined], w[defined], rtol=tolerance, atol=tolerance, equal_nan=True)


def one_gate(function):
    """Return a cell whose step is a function of the input plus the recurrence."""

    class Plain(recurlab.Cell):
        gates = ("only",)

        def step(self, x, h, recur):
            return function(x.only + recur.only(h))

    return Plain()


def run_at(function, points, backend):
    """Return a function of some float64 numbers, computed as the step of a layer."""
    points = torch.tensor(points, dtype=torch.float64)
    options = {"recurrence": "diagonal", "bias": False, "backend": backend, "dtype": torch.float64}
    layer = recurlab.RNN(1, len(points), cell=one_gate(function), **options)
    layer.load_state_dict({"weight_ih_l0": torch.zeros(len(points), 1), "weight_hh_l0": torch.ones(len(points))})
    return layer(torch.zeros(1, 1, 1, dtype=torch.float64), points.view(1, 1, -1))[1].flatten()


def test_a_quotient_is_cut_off_as_the_reference_does(skip_unless_able):
    skip_unless_able("fused")
    points = [1.0, 0.3, -0.3, 0.7, 1e17, float("inf"), -5.5]
    wanted, found = (
        run_at(lambda v: torch.div(v, 0.1, rounding_mode="trunc"), points, backend) for backend in ("eager", "fused")
    )
    assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


OUTSIDE = torch.ones(3)
REFUSED = {  # what a step does, and what the reason names
    "cumsum": (lambda v: v.cumsum(-1), "cumsum"),
    # Rounding the quotient of floats down is another number than torch's, now and then.
    "floor_division": (lambda v: torch.div(v, 0.3, rounding_mode="floor"), "rounding_mode='floor'"),
    "softmax": (lambda v: v.softmax(-1), "softmax|amax"),
    "sum_over_units": (lambda v: v - v.mean(-1, keepdim=True), "mean|sum"),
    "sort": (lambda v: v.sort(-1).values, "sort"),
    "flip": (lambda v: v.flip(-1), "flip"),
    "roll": (lambda v: v.roll(1, -1), "roll|."),
    "matmul": (lambda v: v @ v.mT @ v, "mm|transpose|permute"),
    "random": (lambda v: v + torch.rand_like(v), "rand"),
    "dropout": (lambda v: F.dropout(v, 0.5), "dropout|rand|bernoulli"),
    "data_dependent": (lambda v: v if v.sum() > 0 else -v, "cell Plain"),
    "number_of_a_tensor": (lambda v: v * float(v.detach().sum()), "cell Plain"),
    "outside": (lambda v: v * OUTSIDE.to(v)[: v.shape[-1]].sum(), "cell Plain"),
    "slices": (lambda v: torch.cat([v[:, 1:], v[:, :1]], -1), "slice|cat"),
}


@pytest.mark.parametrize("recurrence", ["dense", "diagonal"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_kernel_can_do_is_refused_by_name_and_auto_takes_the_reference(name, recurrence, skip_unless_able):
    skip_unless_able("fused")
    function, operation = REFUSED[name]
    x = torch.randn(2, 2, 2)
    named = recurlab.RNN(2, 3, cell=one_gate(function), recurrence=recurrence, backend="fused")
    with pytest.raises(recurlab.RecurlabError, match=operation) as refusal:
        named(x)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith("backend='fused': ")
    assert "Plain" in message
    usual = recurlab.RNN(2, 3, cell=one_gate(function), recurrence=recurrence)
    usual(x)
    assert usual.backends_used == {0: "eager"}
    reason = next(line for line in usual.explain().splitlines() if "not fused: " in line).partition("not fused: ")[2]
    assert reason in message


@pytest.mark.parametrize("name", ["cumsum", "sort"])
def test_a_refusal_gives_the_line_of_the_step(name, skip_unless_able):
    skip_unless_able("fused")
    layer = recurlab.RNN(2, 3, cell=one_gate(REFUSED[name][0]), backend="fused")
    with pytest.raises(recurlab.RecurlabError) as refusal:
        layer(torch.randn(2, 2, 2))
    place = r"cell Plain \(.*test_operations\.py:\d+: return function\(x\.only \+ recur\.only\(h\)\)\)"
    assert refusal.match(place)


def test_a_refused_step_whose_source_is_lost_is_no_crash(skip_unless_able):
    skip_unless_able("fused")
    names = {"torch": torch}
    exec("def step(self, x, h, recur):\n    return torch.cumsum(x.only + recur.only(h), -1)", names)  # noqa: S102
    cell = type("Typed", (recurlab.Cell,), {"gates": ("only",), "step": names["step"]})()
    layer = recurlab.RNN(2, 3, cell=cell)
    layer(torch.randn(2, 2, 2))
    assert layer.backends_used == {0: "eager"}
    assert "cumsum" in layer.explain()
