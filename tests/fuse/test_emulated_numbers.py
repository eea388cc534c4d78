"""The numbers of the emulation: products of matrices from the fragments that PTX documents, conversions, rounding."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from recurlab.fuse.cpu import compiler
from tiny_kernels import run, same

pytestmark = pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")

# ---- a warp's matrix products -------------------------------------------------------------------------------

# By the tables of the PTX manual, "Matrix Fragments for mma.m16n8k16" and "mma.m16n8k8".
PRODUCT = """
    const unsigned lane = thread_index() % 32, group = lane / 4, member = lane % 4;
    const float *const a = p.x + thread_index() / 32 * (16 * K + K * 8), *const b = a + 16 * K;
    float *const c = p.y + thread_index() / 32 * 128;
    const auto row_of_c = [&](int i) { return i < 2 ? group : group + 8; };
    const auto column_of_c = [&](int i) { return member * 2 + (i & 1); };
    float sums[4];
    unsigned of_a[4] = {}, of_b[2] = {};
    for (int i = 0; i < 4; i++) sums[i] = c[row_of_c(i) * 8 + column_of_c(i)];
    LOAD
    MULTIPLY(sums, of_a, of_b[0], of_b[1]);
    for (int i = 0; i < 4; i++) c[row_of_c(i) * 8 + column_of_c(i)] = sums[i];
"""
LOAD_HALVES = """
    for (int i = 0; i < 8; i++) {
        const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, column = member * 2 + (i & 1) + (i < 4 ? 0 : 8);
        of_a[i / 2] |= (unsigned)CONVERT(a[row * K + column]) << 16 * (i % 2);
    }
    for (int i = 0; i < 4; i++)
        of_b[i / 2] |= (unsigned)CONVERT(b[(member * 2 + (i & 1) + (i < 2 ? 0 : 8)) * 8 + group]) << 16 * (i % 2);
"""
LOAD_WORDS = """
    for (int i = 0; i < 4; i++)
        of_a[i] = CONVERT(a[(i % 2 == 0 ? group : group + 8) * K + (i < 2 ? member : member + 4)]);
    for (int i = 0; i < 2; i++) of_b[i] = CONVERT(b[(i == 0 ? member : member + 4) * 8 + group]);
"""


def multiplied(kind, a, b, c, seed=0):
    """Return c + a b for each of several warps, (warps, 16, depth) by (warps, depth, 8)."""
    x = torch.cat([a.flatten(1), b.flatten(1)], 1).contiguous()
    load, convert = (LOAD_WORDS, "round_tf32") if kind == "tf32" else (LOAD_HALVES, f"to_{kind}")
    body = PRODUCT.replace("LOAD", load).replace("MULTIPLY", f"multiply_{kind}")
    body = body.replace("CONVERT", convert).replace("K", str(a.shape[2]))
    return run(body, x, c.clone(), threads=32 * len(a), seed=seed)


DEPTHS = {"bf16": 16, "f16": 16, "tf32": 8}


@pytest.mark.parametrize("kind", DEPTHS)
@pytest.mark.parametrize("seed", [0, 1])
def test_warps_multiply_matrices(kind, seed):
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-99, 100, (3, 16, DEPTHS[kind]), generator=generator) / 8
    b = torch.randint(-99, 100, (3, DEPTHS[kind], 8), generator=generator) / 4
    c = torch.randint(-99, 100, (3, 16, 8), generator=generator) / 2
    assert torch.equal(multiplied(kind, a, b, c, seed), c + a @ b)  # all exact


def cut(x: Fraction, last: int) -> Fraction:
    """Drop the bits of a number that are worth less than 2 to the power of `last`."""
    return math.trunc(x / Fraction(2) ** last) * Fraction(2) ** last


def on_tensor_cores(row, column, before):
    """Return before + row * column as those of a Hopper GPU sum it."""
    factors = [(x, y) for x, y in zip(row, column, strict=True) if x * y]
    exponents = [math.frexp(x)[1] + math.frexp(y)[1] - 2 for x, y in factors]
    last = max([*exponents, *([math.frexp(before)[1] - 1] if before else [])]) - 25
    total = sum((cut(Fraction(x) * Fraction(y), last) for x, y in factors), cut(Fraction(before), last))
    return float(cut(total, math.frexp(float(abs(total)))[1] - 24)) if total else 0.0


@pytest.mark.parametrize("kind", DEPTHS)
def test_sums_of_products_are_cut_off_as_a_gpu_does(kind):
    generator = torch.Generator().manual_seed(2)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "tf32": torch.float16}[kind]  # tf32 has as many bits

    def wide(*shape):
        return torch.randn(shape, generator=generator) * 2.0 ** torch.randint(-6, 6, shape, generator=generator)

    a, b = (wide(2, *shape).to(dtype).float() for shape in ((16, DEPTHS[kind]), (DEPTHS[kind], 8)))
    c = wide(2, 16, 8) * 2.0 ** torch.randint(-9, 9, (2, 16, 8), generator=generator)
    c[:, 0] = 0
    wanted = torch.empty_like(c)
    for w, i, j in itertools.product(range(2), range(16), range(8)):
        wanted[w, i, j] = on_tensor_cores(a[w, i].tolist(), b[w, :, j].tolist(), c[w, i, j].item())
    found = multiplied(kind, a, b, c)
    assert torch.equal(found, wanted)
    assert (found != (c.double() + a.double() @ b.double()).float()).float().mean() > 0.3


@pytest.mark.parametrize(
    ("before", "product", "after"),
    [(1, 1.5 * 2**-23, 1 + 2**-23), (1, -(2**-25), 1 - 2**-24), (1, -(2**-26), 1),
     (-1, 2**-26, -1), (0, 2**-70, 2**-70)],
)  # fmt: skip
def test_what_a_tensor_core_drops(before, product, after):
    a, b, c = torch.zeros(1, 16, 16), torch.zeros(1, 16, 8), torch.full((1, 16, 8), float(before))
    a[:, :, 3], b[:, 3] = product * 2**30, 2**-30
    assert torch.equal(multiplied("bf16", a, b, c), torch.full_like(c, after))


def test_tf32_products_drop_the_last_bits():
    one, more = torch.tensor([1 + 2.0**-11, 1 + 2.0**-10]).tolist()
    body = """
    float c[4] = {};
    const unsigned a[4] = {bits_of(p.x[0]), bits_of(p.x[0]), 0, 0};
    multiply_tf32(c, a, bits_of(p.x[1]), 0);
    p.y[thread_index()] = c[0];
    """
    y = run(body, torch.tensor([one, more]), torch.zeros(32), threads=32)
    assert torch.equal(y, torch.full((32,), 4 * more))


# ---- numbers ------------------------------------------------------------------------------------------------

EDGES = [-0.0, 65519.996, 65520.0, -1e6, 6e-8, 2.0**-25, 2.0**-25 * 1.01, 6.1e-5, 1e-40, 3.39e38, 3.4e38]


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_conversions_round_as_torch_does(kind, dtype):
    generator = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**31), 2**31, (4096,), generator=generator).to(torch.int32).view(torch.float32)
    near = torch.randn(4096, generator=generator) * 2.0 ** torch.randint(-26, 17, (4096,), generator=generator)
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).float()
    x = torch.cat([bits, near, halves, torch.tensor([*EDGES, torch.inf, -torch.inf, torch.nan])])
    body = f"for (int i = thread_index(); i < p.n; i += THREADS) p.y[i] = from_{kind}(to_{kind}(p.x[i]));"
    y = run(body, x, torch.empty_like(x), len(x))
    assert torch.equal(y.isnan(), x.isnan())
    kept = ~x.isnan()
    assert torch.equal(y[kept].view(torch.int32), x.to(dtype).float()[kept].view(torch.int32))


def test_tf32_rounds_halves_away_from_zero():
    x = torch.tensor([1 + 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-12, torch.inf, torch.nan, 3 + 2.0**-10])
    body = "for (int i = thread_index(); i < p.n; i += THREADS) p.y[i] = float_of(round_tf32(p.x[i]));"
    y = run(body, x, x.clone(), len(x))
    assert same(y, torch.tensor([1 + 2.0**-10, -1 - 2.0**-10, 1.0, torch.inf, torch.nan, 3 + 2.0**-9]))


def test_high_words_and_fast_functions():
    body = """
    p.y[0] = multiply_high(0xD2511F53u, 0xfedcba98u) == (unsigned)(0xD2511F53ull * 0xfedcba98ull >> 32);
    p.y[1] = exp2_fast(p.x[0]);
    p.y[2] = reciprocal_fast(p.x[0]);
    """
    y = run(body, torch.tensor([-3.0]), torch.zeros(3))
    assert torch.equal(y, torch.tensor([1, 0.125, -1 / 3]))
