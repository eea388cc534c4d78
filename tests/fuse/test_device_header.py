"""device.h compiles for every GPU that it is for, with a kernel that uses all of it that the GPU has."""

import pytest

from emulated import DEVICE

nvrtc = pytest.importorskip("recurlab.fuse.cuda.nvrtc")

ALL = """
struct Problem { float *x; Words *words; unsigned *counter; Fault fault; };
ENTRY(all) {
    float *const mine = (float *)shared_memory();
    Words *const words = (Words *)(mine + THREADS);
    const unsigned i = thread_index();
    const float x = p.x[block_index() * THREADS + i];
    const unsigned short brain = to_bf16(x), half = to_f16(x);
    mine[i] = from_bf16(brain) + from_f16(half) + exp2_fast(x) * reciprocal_fast(x);
    words[i] = p.words[i];
    block_barrier();
    Words v = words[i ^ 1];
    v.w[0] ^= multiply_high(v.w[1], bits_of(float_of(v.w[2]) + 1));
    store_coherent(p.words + i, v);
    block_barrier();
    if (i == 0) {
        signal(p.counter);
        await(p.counter, block_count(), p.fault);
    }
    block_barrier();
    float c[4] = {};
    unsigned a[4] = {v.w[0], v.w[1], v.w[2], v.w[3]};
    multiply_f16(c, a, brain, half);
    p.x[i] = mine[i ^ 1] + c[0] + c[1] + c[2] + c[3];
}
"""
TENSOR = """
ENTRY(tensor) {
    float c[4] = {};
    unsigned a[4];
    for (int k = 0; k < 4; k++) a[k] = round_tf32(p.x[thread_index() * 4 + k]);
    multiply_tf32(c, a, a[0], a[1]);
    multiply_bf16(c, a, a[0], a[1]);
    for (int k = 0; k < 4; k++) p.x[thread_index() * 4 + k] = c[k];
}
"""
COPIES = """
ENTRY(copies) {
    Words *const mine = (Words *)shared_memory() + thread_index();
    copy_coherent(mine, p.words + thread_index());
    copies_arrived();
    block_barrier();
    p.words[thread_index()] = mine[1];
}
"""
CLUSTER = """
ENTRY(sends) {
    Arrivals *const arrivals = (Arrivals *)shared_memory();
    Words *const mine = (Words *)(arrivals + 2) + thread_index();
    const unsigned other = cluster_rank() ^ 1;
    if (thread_index() == 0) arrivals_start(arrivals);
    cluster_barrier();
    if (thread_index() == 0) arrivals_expect(arrivals, THREADS * 16);
    cluster_send(in_cluster(mine, other), p.words[thread_index()], in_cluster(arrivals, other));
    arrivals_await(arrivals, 0, p.fault);
    p.words[thread_index()] = *mine;
}
"""


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_all_of_it_compiles(capability):
    parts = ["constexpr int THREADS = 256;", DEVICE, ALL]
    parts += [TENSOR, COPIES] * (capability >= (8, 0)) + [CLUSTER] * (capability >= (9, 0))
    assert nvrtc.cubin("\n".join(parts), capability)
