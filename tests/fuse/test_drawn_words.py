"""The random words that the kernels draw for zoneout: the same for every set of instructions and in the reference."""

import ctypes

import pytest
import torch

from compiling import MARCHES, for_march
from recurlab.cells.zoneout import LOW, philox
from recurlab.fuse.abi import Structs
from recurlab.fuse.headers import header

DTYPES = {"float": torch.float32, "double": torch.float64}
SHIM = """
extern "C" int width() { return W; }
extern "C" void draw_words(long long seed, long t, long b, long j, int s, unsigned *to) {
    Problem p = {};
    p.direction[0].seed = &seed;
    const Drawn drawn = draw(p, p.direction[0], t, b, j, s);
    for (int k = 0; k < 4; k++)
        for (int lane = 0; lane < W; lane++) to[k * W + lane] = drawn.at[k][lane];
}
extern "C" void ten_rounds(const unsigned *c, const unsigned *key, unsigned *to) {
    const auto found = philox<10>(counter_of(word(c[0]), word(c[1]), word(c[2]), word(c[3])), key[0], key[1]);
    to[0] = found.a, to[1] = found.b, to[2] = found.c, to[3] = found.d;
}
"""


@pytest.fixture(
    scope="module", params=[(kind, march) for kind in DTYPES for march in ("native", *MARCHES)], ids="-".join
)
def library(request, tmp_path_factory):
    kind, march = request.param
    text = [
        f"typedef {kind} real, Store;",
        f"#define REAL_IS_FLOAT {int(kind == 'float')}",
        "#define INLINE inline __attribute__((always_inline))",
        header("cpu", "arithmetic"),
        "struct Step { static constexpr int GATES = 1, STATES = 2, PHASES = 1; };",
        header("cpu", "philox"),
        Structs("cpu", 2, 1, DTYPES[kind], normalized=False).text,
        header("cpu", "problem"),
        header("cpu", "zoneout"),
        SHIM,
    ]
    return for_march("\n".join(text), march, tmp_path_factory.mktemp("shim"))


def array(*values):
    return (ctypes.c_uint * len(values))(*values)


def test_ten_rounds_give_a_published_vector(library):
    to = array(0, 0, 0, 0)
    counter = array(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    library.ten_rounds(counter, array(0xA4093822, 0x299F31D0), to)
    assert list(to) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
def test_a_kernel_draws_the_words_of_the_reference(library, seed):
    width, key = library.width(), (torch.tensor(seed & LOW), torch.tensor(seed >> 32 & LOW))
    for t, b, j, s in [(0, 0, 0, 0), (3, 1, 5, 1), (4, 0, 16, 0), (787, 31, 250, 1), (2**31 + 6, 2**31, 2**31, 1)]:
        to = array(*[0] * (4 * width))
        library.draw_words(ctypes.c_longlong(seed), ctypes.c_long(t), ctypes.c_long(b), ctypes.c_long(j), s, to)
        units = torch.arange(j, j + width)
        wanted = philox((torch.tensor(t // 4), torch.tensor(b), units, s), key)
        assert list(to) == [int(w) for row in torch.broadcast_tensors(*wanted) for w in row]
