"""The emulation of CUDA threads on the CPU: it runs right kernels right, and tells wrong ones."""

import pytest
import torch

from emulated import Emulated
from recurlab.fuse.cpu import compiler
from tiny_kernels import Problem, run, same, source, without

pytestmark = pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
SEEDS = range(6)


# ---- a block ------------------------------------------------------------------------------------------------

SUM = """
    float *const part = (float *)shared_memory();
    const unsigned i = thread_index();
    part[i] = p.x[block_index() * THREADS + i];
    block_barrier();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        const float other = i < half ? part[i + half] : 0;
        block_barrier();
        if (i < half) part[i] += other;
        block_barrier();
    }
    p.y[block_index() * THREADS + i] = part[0];
"""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", [32, 256])
def test_a_block_sums_through_shared_memory(seed, threads):
    x = torch.arange(3.0 * threads).view(3, threads)
    y = run(SUM, x, torch.zeros_like(x), threads=threads, blocks=3, seed=seed, shared=threads * 4)
    assert torch.equal(y, x.sum(1, keepdim=True).expand(3, threads))


@pytest.mark.parametrize("which", [0, 2])
def test_a_missing_barrier_gives_wrong_sums(which):
    x = torch.arange(64.0)
    body = without(SUM, "block_barrier();", which)
    wrong = [not same(run(body, x, torch.zeros(64), seed=seed, shared=256), x.sum().expand(64)) for seed in SEEDS]
    assert sum(wrong) > 1


def test_shared_memory_starts_as_nan():
    body = "p.y[thread_index()] = ((float *)shared_memory())[thread_index()];"
    y = run(body, torch.zeros(64), torch.zeros(64), shared=256)
    assert y.isnan().all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (i > 2) block_barrier();", "61 from thread 3 on at block_barrier of `if"),
        ("if (i < 32) block_barrier();\nelse block_barrier();", "32 from thread 32 on at block_barrier of `else"),
        ("if (i == 0) await(p.counter, 1, {});\nblock_barrier();", "deadlock: 1 from thread 0 on at await of `if"),
        ("cluster_barrier();\nif (i) cluster_barrier();", "1 from thread 0 on at its end"),
        (
            "float c[4]; unsigned a[4];\nif (i != 40) multiply_f16(c, a, 0, 0);",
            "31 from thread 32 on at multiply of `if",
        ),
        ("shared_memory()[64] = 1;", "wrote past its shared memory"),
        ("store_coherent((Words *)(p.y + 1), Words());", "not aligned"),
        ("volatile char room[200000];\nfor (int i = 0; i < 200000; i++) room[i] = 1;", "stack overflow"),
    ],
    ids=["end", "apart", "await", "cluster", "warp", "past", "aligned", "stack"],
)
def test_threads_that_go_astray_are_told(body, message):
    with pytest.raises(AssertionError) as caught:
        run(f"const unsigned i = thread_index();\n{body}", torch.zeros(64), torch.zeros(64), shared=64)
    assert message in str(caught.value)


GATE = torch.zeros(1)  # which the thread still reads when the test is over


def test_a_thread_in_a_loop_is_given_up():
    with pytest.raises(AssertionError, match="not at an end in time"):
        run("while (!*(const volatile float *)p.x) {}", GATE.zero_(), torch.zeros(64), seconds=1)
    GATE.fill_(1)  # lets it end


# ---- clusters and grids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_send_to_a_block_that_has_ended_is_told(seed):
    body = """
    Arrivals *const counter = (Arrivals *)shared_memory();
    if (thread_index() == 0) arrivals_start(counter);
    cluster_barrier();
    const cluster_pointer to = in_cluster(counter + 2, 0);
    for (; cluster_rank(); block_barrier()) cluster_send(to, Words(), in_cluster(counter, 0));
    """
    # Which of the two blocks is the first to notice it is open.
    with pytest.raises(AssertionError, match=r"to a block that has ended|ends in the middle of a round"):
        run(body, torch.zeros(64), torch.zeros(64), blocks=2, cluster=2, shared=32, seed=seed)


# All blocks of the grid meet at each of n steps.
GRID = """
    Words *const all = (Words *)p.y;  // of each block, for even and odd steps
    const unsigned i = thread_index(), blocks = block_count();
    Words *const room = (Words *)shared_memory() + i * blocks;
    float mine = p.x[block_index()];
    for (unsigned step = 0; step < (unsigned)p.n; step++) {
        Words *const now = all + step % 2 * blocks * THREADS;
        Words words;
        for (int k = 0; k < 4; k++) words.w[k] = bits_of(mine);
        store_coherent(now + block_index() * THREADS + i, words);
        block_barrier();
        if (i == 0) signal(p.counter);
        if (i == 0) await(p.counter, blocks * (step + 1), {});
        block_barrier();
        const Words *const others = now + (i + 5) % THREADS;
        for (unsigned b = 0; b < blocks; b++) copy_coherent(room + b, others + b * THREADS);
        copies_arrived();
        for (unsigned b = 0; b < blocks; b++) mine += float_of(room[b].w[b % 4]);
    }
    for (int k = 0; k < 4; k++) p.y[((2 * blocks + block_index()) * THREADS + i) * 4 + k] = mine;
"""


def grid(body, seed, steps=6, blocks=3, cooperative=True):
    x = torch.arange(1.0, blocks + 1)
    y = torch.full((3, blocks, 64, 4), torch.nan)
    run(body, x, y, steps, blocks=blocks, seed=seed, cooperative=cooperative, shared=64 * blocks * 16)
    for _ in range(steps):
        x = x + x.sum()
    return same(y[2], x.view(-1, 1, 1).expand_as(y[2]))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_grid_meets(seed):
    assert grid(GRID, seed)


AWAIT = "if (i == 0) await(p.counter, blocks * (step + 1), {});"


@pytest.mark.parametrize(("line", "which"), [(AWAIT, 0), ("block_barrier();", 0), ("block_barrier();", 1)])
def test_a_grid_that_does_not_meet_is_noticed(line, which):
    assert not all(grid(without(GRID, line, which), seed) for seed in range(1, 8))


# ---- launches -----------------------------------------------------------------------------------------------


def test_blocks_count_on_each_other_in_cooperative_launches_only():
    with pytest.raises(AssertionError, match="deadlock"):
        grid(GRID, 0, cooperative=False)
    with pytest.raises(AssertionError, match="only 8 can be resident"):
        grid(GRID, 0, blocks=9)


def test_launches_that_a_gpu_refuses():
    x = torch.zeros(64)
    with pytest.raises(AssertionError, match="cluster=2"):
        run("", x, x, blocks=3, cluster=2)
    module = Emulated(source("", 64))
    with pytest.raises(AssertionError, match="number of threads"):
        module.launch("kernel", Problem(), blocks=1, threads=32)
