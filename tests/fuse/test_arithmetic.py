"""The arithmetic of compiled kernels: errors over all numbers, special numbers, lanes, loads and stores."""

import ctypes
from functools import cache

import numpy as np
import pytest
import torch

from compiling import MARCHES, for_march
from recurlab.fuse.headers import header

DTYPES = {"float": np.float32, "double": np.float64}
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
BOUND = {np.float32: 2.5e-7, np.float64: 5e-16}  # on the relative error
SMOOTH = ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf")
EXACT = ("abs", "sign", "floor", "ceil", "trunc", "round")
BINARY = ("minimum", "maximum", "pow")

SHIM = """
#define UNARY(name) extern "C" void do_##name(const real *a, real *to, long n) { \\
    for (long i = 0; i < n; i += W) store(to + i, name(load(a + i))); }
#define BINARY(name) extern "C" void do_##name(const real *a, const real *b, real *to, long n) { \\
    for (long i = 0; i < n; i += W) store(to + i, name(load(a + i), load(b + i))); }
extern "C" int width() { return W; }
extern "C" void load_part(const real *from, real *to, int n) { store(to, load(from, n)); }
extern "C" void store_part(const real *from, real *to, int n) { store(to, load(from), n); }
extern "C" void ordered(const real *a, const real *b, real *to) {
    mask less = load(a) < load(b), same = load(a) == load(b);
    store(to, where(less | same, splat(1), splat(real(0.5))));
}
"""


def source(kind):
    head = [
        f"typedef {kind} real;",
        f"#define REAL_IS_FLOAT {int(kind == 'float')}",
        "#define INLINE inline __attribute__((always_inline))",
        header("cpu", "arithmetic"),
    ]
    calls = [f"UNARY({name})" for name in SMOOTH + EXACT] + [f"BINARY({name})" for name in BINARY]
    return "\n".join([*head, SHIM, *calls, ""])


class Arithmetic:
    """The functions of a compiled shim on arrays."""

    def __init__(self, library, dtype):
        self.library, self.dtype, self.width = library, dtype, library.width()

    def __call__(self, name, *args):
        size = args[0].size
        padded = [np.zeros(-(-size // self.width) * self.width, self.dtype) for _ in range(len(args) + 1)]
        for to, arg in zip(padded, args, strict=False):
            to[:size] = arg
        self.raw(f"do_{name}", *padded, ctypes.c_long(padded[0].size))
        return padded[-1][:size]

    def raw(self, name, *args):
        getattr(self.library, name)(
            *(a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in args)
        )


@pytest.fixture(
    scope="module", params=[(kind, march) for kind in DTYPES for march in ("native", *MARCHES)], ids="-".join
)
def arithmetic(request, tmp_path_factory):
    kind, march = request.param
    return Arithmetic(for_march(source(kind), march, tmp_path_factory.mktemp("shim")), DTYPES[kind])


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


@cache
def sweep(dtype):
    """Return about 1e6 numbers: of every size, dense where functions bend, and around the ends of their ranges."""
    info, random = np.finfo(dtype), np.random.default_rng(0)
    sizes = np.exp(random.uniform(np.log(float(info.tiny)), np.log(float(info.max)) * 0.9999, 200_000))
    ends = [np.log(float(info.max)), np.log(float(info.tiny)), float(info.minexp - 30), 1, -1, 0]
    near = [dtype(end) * (1 + np.arange(-40, 41) * info.eps) for end in ends]
    lines = [np.linspace(-high, high, 150_001) for high in (1, 5, 20, 110, 750)]
    return np.concatenate([sizes, -sizes, *lines, *near]).astype(dtype)


def inputs(name, dtype):
    x = sweep(dtype)
    if name in ("sin", "cos"):
        return x[abs(x) < 1e4]  # the references' own reduction has an end
    return x[x > 0] if name in ("log", "sqrt") else x[x > -1] if name == "log1p" else x


@cache
def reference(name, dtype):
    x = inputs(name, dtype).astype(WIDER[dtype])
    if name == "erf":
        return torch.erf(torch.from_numpy(x.astype(np.float64))).numpy()
    if name == "sigmoid":
        e = np.exp(-abs(x))
        return np.where(x >= 0, 1, e) / (1 + e)
    return getattr(np, name)(x)


@pytest.mark.parametrize("name", SMOOTH)
def test_error(arithmetic, name):
    info = np.finfo(arithmetic.dtype)
    expected, got = reference(name, arithmetic.dtype), arithmetic(name, inputs(name, arithmetic.dtype))
    size = abs(expected)
    normal = (size >= info.tiny) & (size <= info.max)
    error = abs(got.astype(expected.dtype) - expected)[normal] / size[normal]
    assert normal.sum() > 100_000
    assert error.max() < BOUND[arithmetic.dtype]
    # beyond: infinite above, and below either flushed or the gradual underflow
    assert np.array_equal(got[size > info.max], np.sign(expected[size > info.max]) * np.inf)
    assert (abs(got[size < info.tiny]) <= info.tiny).all()
    assert np.array_equal(np.sign(got[normal]), np.sign(expected[normal]))


SPECIAL = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.49999997,
    1e-30,
    -1e-30,
    1e30,
    -1e30,
]


def specials(dtype):
    info = np.finfo(dtype)
    tail = [info.max, -info.max, info.tiny, -info.tiny, 2.0**info.nmant, 2.0**info.nmant - 0.5, 2.0**info.nmant + 1]
    return np.array([*SPECIAL, *tail], dtype)


def assert_same(got, expected):
    """Check values, NaNs and the signs of zeros."""
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("name", EXACT)
def test_exact_functions_agree_with_torch(arithmetic, name):
    x = np.concatenate([specials(arithmetic.dtype), sweep(arithmetic.dtype)])
    expected = getattr(torch, name)(torch.from_numpy(x)).numpy()
    assert_same(arithmetic(name, x) + (name == "sign"), expected + (name == "sign"))


def test_sign_of_nan_is_zero(arithmetic):
    assert arithmetic("sign", np.array([np.nan, -0.0, 2, -2], arithmetic.dtype)).tolist() == [0, 0, 1, -1]


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_agree_with_torch(arithmetic, name):
    a, b = (x.ravel() for x in np.meshgrid(specials(arithmetic.dtype), specials(arithmetic.dtype)))
    expected = getattr(torch, name)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    got = arithmetic(name, a, b)
    if name == "pow":
        np.testing.assert_allclose(got, expected, rtol=BOUND[arithmetic.dtype])
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", SMOOTH)
def test_special_numbers(arithmetic, name):
    x = np.array([np.inf, -np.inf, 0.0, -0.0, np.nan], arithmetic.dtype)
    inf, nan = np.inf, np.nan
    expected = {
        "exp": [inf, 0.0, 1.0, 1.0, nan],
        "expm1": [inf, -1.0, 0.0, -0.0, nan],
        "log": [inf, nan, -inf, -inf, nan],
        "log1p": [inf, nan, 0.0, -0.0, nan],
        "sqrt": [inf, nan, 0.0, -0.0, nan],
        "sin": [nan, nan, 0.0, -0.0, nan],
        "cos": [nan, nan, 1.0, 1.0, nan],
        "tanh": [1.0, -1.0, 0.0, -0.0, nan],
        "sigmoid": [1.0, 0.0, 0.5, 0.5, nan],
        "erf": [1.0, -1.0, 0.0, -0.0, nan],
    }
    assert_same(arithmetic(name, x), np.array(expected[name], arithmetic.dtype))


def test_logarithms_at_and_below_their_ends(arithmetic):
    assert np.isnan(arithmetic("log", np.array([-1, -1e-30, -1e30], arithmetic.dtype))).all()
    assert np.isnan(arithmetic("log1p", np.array([-1.5, -1e30], arithmetic.dtype))).all()
    assert arithmetic("log1p", np.array([-1], arithmetic.dtype))[0] == -np.inf
    least = np.array([np.finfo(arithmetic.dtype).smallest_subnormal * 3], arithmetic.dtype)
    np.testing.assert_allclose(arithmetic("log", least), np.log(least), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in SMOOTH + EXACT if name != "sign"])
def test_nan_stays_in_its_lane(arithmetic, name):
    width, dtype = arithmetic.width, arithmetic.dtype
    clean = np.linspace(0.1, 3, width).astype(dtype)
    expected = arithmetic(name, clean)
    # quiet and signalling ones of both signs, whose other bits must not matter
    patterns = {4: (0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FC12345), 8: (0x7FF8 << 48, (0x7FF << 52) + 1, 2**64 - 1)}
    for pattern in patterns[dtype().itemsize]:
        for lane in range(width):
            x = clean.copy()
            x.view(f"u{x.itemsize}")[lane] = pattern
            got = arithmetic(name, x)
            assert np.isnan(got[lane])
            assert np.array_equal(np.delete(got, lane), np.delete(expected, lane))


def test_partial_loads_and_stores(arithmetic):
    width, dtype = arithmetic.width, arithmetic.dtype
    numbers = np.arange(1, width + 1, dtype=dtype)
    for n in range(width + 1):
        for offset in (0, 1):
            around = np.full(3 * width, np.nan, dtype)
            around[width + offset :][:n] = numbers[:n]
            to = np.full(width, -1, dtype)
            arithmetic.raw("load_part", around[width + offset :], to, n)
            assert to.tolist() == [*numbers[:n], *[0] * (width - n)]
            room = np.full(3 * width, -1, dtype)
            arithmetic.raw("store_part", numbers, room[width + offset :], n)
            assert room.tolist() == [*[-1] * (width + offset), *numbers[:n], *[-1] * (2 * width - offset - n)]


def test_masks_of_comparisons(arithmetic):
    width, dtype = arithmetic.width, arithmetic.dtype
    a, b = np.resize(np.array([1, 2, 3, np.nan], dtype), width), np.full(width, 2, dtype)
    to = np.empty(width, dtype)
    arithmetic.raw("ordered", a, b, to)
    assert_same(to, np.where(a <= b, 1, 0.5).astype(dtype))
