"""Products of matrices by the compiled function: values for all layouts and odd sizes, and the same bits."""

from itertools import product as product_of

import pytest
import torch
from torch.testing import assert_close

from compiling import for_march
from multiplied import multiply
from recurlab.fuse.cpu.source import product_source

pytestmark = pytest.mark.usefixtures("able")

# Rows, terms and columns: single ones, about the sizes of vectors, tiles, bands and panels, and beyond each.
SHAPES = [(1, 1, 1), (1, 700, 33), (5, 3, 1), (7, 16, 64), (70, 80, 9), (8, 513, 65), (97, 130, 28), (200, 64, 130)]
CPUS = ("native", "haswell", "x86-64")
LAYOUTS = ["plain", "transposed", "part", "spread"]


def laid_out(matrix, layout):
    """Return an equal matrix that lies otherwise in memory, among numbers that are not to be read."""
    rows, columns = matrix.shape
    if layout == "transposed":
        return matrix.t().contiguous().t()
    step = 2 if layout == "spread" else 1
    room = torch.full((rows + 2, step * columns + 3), torch.nan, dtype=matrix.dtype)
    view = room[1:-1, 1 : 1 + step * columns : step] if layout != "plain" else torch.empty_like(matrix)
    return view.copy_(matrix)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[*product_of(("float32", "float64"), CPUS)], ids="-".join)
def compiled(request, tmp_path_factory):
    """Return a type, and the function compiled for it and some CPU."""
    dtype, march = getattr(torch, request.param[0]), request.param[1]
    return dtype, for_march(product_source(dtype), march, tmp_path_factory.mktemp("product"))


@pytest.fixture
def dtype(compiled, monkeypatch):
    monkeypatch.setattr("multiplied.compiled", lambda _: compiled[1].product)
    return compiled[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_product_and_nothing_beside_it_is_touched(shape, dtype):
    rows, terms, columns = shape
    left, right = torch.randn(rows, terms, dtype=dtype), torch.randn(terms, columns, dtype=dtype)
    expected = left.double() @ right.double()
    for a, b in [(one, "plain") for one in LAYOUTS] + [("plain", one) for one in LAYOUTS]:
        room = torch.full((rows + 2, columns + 2), 3.0, dtype=dtype)
        out = room[1:-1, 1:-1]
        for add in (False, True):
            multiply(out, laid_out(left, a), laid_out(right, b), add=add)
            assert_close(out.double(), (1 + add) * expected, rtol=1e-5, atol=1e-5 * terms**0.5)
        out.fill_(3)
        assert torch.all(room == 3)


@pytest.mark.parametrize("shape", [*SHAPES, (40, 1, 1), (130, 5, 1)], ids=str)
def test_rows_are_read_and_written_where_they_are_said_to_lie(shape, dtype):
    rows, terms, columns = shape
    places = torch.randperm(rows + 3)[:rows]
    room, left, right = (torch.randn(rows + 3, size, dtype=dtype) for size in (columns, terms, columns))
    out, weight, wanted = room.clone(), torch.randn(terms, columns, dtype=dtype), room.clone()
    multiply(out, left[:rows], weight, out_rows=places)
    wanted[places] = left[:rows] @ weight
    assert_close(out, wanted, rtol=1e-5, atol=1e-5 * terms**0.5)
    multiply(out[:rows], left, weight, left_rows=places)
    assert_close(out[:rows], left[places] @ weight, rtol=1e-5, atol=1e-5 * terms**0.5)
    product = torch.empty(terms, columns, dtype=dtype)
    multiply(product, left[:rows].t(), right, right_rows=places)
    assert_close(product, left[:rows].t() @ right[places], rtol=1e-5, atol=1e-5 * rows**0.5)


@pytest.mark.parametrize("terms", [0, 1])
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("columns", [0, 1])
def test_sums_of_no_terms_are_zero(rows, terms, columns):
    out = torch.ones(rows, columns)
    multiply(out, torch.ones(rows, terms), torch.ones(terms, columns), add=True)
    assert torch.equal(out, torch.full((rows, columns), 1.0 + terms))
    multiply(out, torch.ones(rows, terms), torch.ones(terms, columns), add=False)
    assert torch.equal(out, torch.full((rows, columns), float(terms)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_depend_on_neither_threads_nor_layout(dtype, threads):
    left, right = torch.randn(101, 600, dtype=dtype), torch.randn(600, 190, dtype=dtype)
    found = []
    for count in (1, 2, 3, 5, 64):
        threads(count)
        for layout in LAYOUTS:
            found.append(torch.empty(101, 190, dtype=dtype))
            multiply(found[-1], laid_out(left, layout), laid_out(right, layout), add=False)
    assert all(torch.equal(found[0], one) for one in found)


def test_a_nan_stays_in_its_row_and_column():
    left, right = torch.randn(50, 30), torch.randn(30, 70)
    left[20, 3], right[7, 33] = torch.nan, torch.inf
    out = torch.empty(50, 70)
    multiply(out, left, right, add=False)
    bad = torch.zeros(50, 70, dtype=torch.bool)
    bad[20], bad[:, 33] = True, True
    assert torch.equal(~out.isfinite(), bad)
