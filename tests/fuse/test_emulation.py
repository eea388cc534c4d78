"""The emulation of CUDA threads on the CPU: it runs right kernels right, and tells wrong ones."""

import pytest
import torch

from emulated import Emulated
from recurlab.fuse import compiler
from tiny_kernels import Problem, run, same, source

pytestmark = pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
SEEDS = range(6)


def without(body: str, line: str, which: int = 0) -> str:
    """Drop one of the lines that are equal to `line`."""
    lines = body.splitlines()
    del lines[[i for i, text in enumerate(lines) if text.strip() == line][which]]
    return "\n".join(lines)


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

# At each of n steps a block gives its own sums to the others and takes the mean of all.
EXCHANGE = """
    Words *const room = (Words *)shared_memory();  // of each block, for even and odd steps
    const unsigned i = thread_index();
    float mine = p.x[block_index()];
    cluster_barrier();
    for (int step = 0; step < p.n; step++) {
        Words *const now = room + step % 2 * 4;
        if (i < 4) {
            const Words words = {{bits_of(mine), bits_of(mine), bits_of(mine), bits_of(mine)}};
            cluster_store(in_cluster(now + cluster_rank(), i), words);
        }
        cluster_barrier();
        float sum = 0;
        for (int rank = 0; rank < 4; rank++) sum += float_of(now[rank].w[i % 4]);
        mine += sum;
    }
    p.y[block_index() * THREADS + i] = mine;
    cluster_barrier();
"""


def expected_of_exchange(x, steps):
    x = x.view(-1, 4).clone()
    for _ in range(steps):
        x += x.sum(1, keepdim=True)
    return x.view(-1, 1).expand(-1, 64)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_exchanges(seed):
    x = torch.arange(8.0)
    y = run(EXCHANGE, x, torch.zeros(8, 64), 5, blocks=8, cluster=4, seed=seed, shared=8 * 16)
    assert torch.equal(y, expected_of_exchange(x, 5))


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_cluster_barrier_is_noticed(which):
    x, wrong = torch.arange(4.0), 0
    body = without(EXCHANGE, "cluster_barrier();", which)
    for seed in range(1, 12):
        try:
            y = run(body, x, torch.zeros(4, 64), 5, blocks=4, cluster=4, seed=seed, shared=8 * 16)
        except AssertionError:
            wrong += 1
        else:
            wrong += not same(y, expected_of_exchange(x, 5))
    assert wrong >= 1


def test_a_store_into_a_block_that_has_ended_is_told():
    body = "if (cluster_rank() == 0) return;\nfor (;;) cluster_store(in_cluster(shared_memory(), 0), Words());"
    with pytest.raises(AssertionError, match="to a block that has ended"):
        run(body, torch.zeros(64), torch.zeros(64), blocks=2, cluster=2, shared=16)


# All blocks of the grid meet at each of n steps.
GRID = """
    Words *const all = (Words *)p.y;  // of each block, for even and odd steps
    const unsigned i = thread_index(), blocks = block_count();
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
        for (unsigned b = 0; b < blocks; b++) mine += float_of(load_coherent(others + b * THREADS).w[b % 4]);
    }
    for (int k = 0; k < 4; k++) p.y[((2 * blocks + block_index()) * THREADS + i) * 4 + k] = mine;
"""


def grid(body, seed, steps=6, blocks=3, cooperative=True):
    x = torch.arange(1.0, blocks + 1)
    y = torch.full((3, blocks, 64, 4), torch.nan)
    run(body, x, y, steps, blocks=blocks, seed=seed, cooperative=cooperative)
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


# ---- what lands late ----------------------------------------------------------------------------------------

# Each thread copies what others of its block have stored, and sums what still others have copied.
COPIES = """
    Words *const room = (Words *)shared_memory(), *const all = (Words *)p.y + block_index() * THREADS;
    const unsigned i = thread_index();
    float mine = p.x[i];
    for (int step = 0; step < p.n; step++) {
        store_coherent(all + i, {{bits_of(mine), bits_of(mine), 0, 0}});
        block_barrier();
        for (unsigned k = i; k < THREADS; k += THREADS / 2) copy_coherent(room + k, all + (k + 3) % THREADS);
        copies_arrived();
        block_barrier();
        mine += float_of(room[(i + 5) % THREADS].w[step % 2]);
    }
    store_coherent(all + i, {{bits_of(mine), bits_of(mine), 0, 0}});
"""
# At each step each block sends its number to all of the cluster, a word of it from each of eight threads.
SENDS = """
    Arrivals *const arrivals = (Arrivals *)shared_memory();  // for even and odd steps
    Words *const room = (Words *)(arrivals + 2);
    const unsigned i = thread_index(), rank = cluster_rank();
    float mine = p.x[block_index()];
    if (i < 2) arrivals_start(arrivals + i);
    cluster_barrier();
    for (int step = 0; step < p.n; step++) {
        Words *const now = room + step % 2 * 8;
        if (i == 0) arrivals_expect(arrivals + step % 2, BYTES);
        const Words words = {{bits_of(mine), bits_of(mine), 0, 0}};
        if (i < 8) cluster_send(in_cluster(now + rank * 2 + i % 2, i / 2), words, in_cluster(arrivals + step % 2, i / 2));
        arrivals_await(arrivals + step % 2, step / 2 % 2, {});
        float sum = 0;
        for (int k = 0; k < 4; k++) sum += float_of(now[k * 2 + i % 2].w[i / 2 % 2]);
        block_barrier();
        mine += sum;
    }
    p.y[block_index() * THREADS + i] = mine;
"""


def copied(body, seed, blocks=2, steps=5):
    x, y = torch.arange(64.0), torch.full((blocks, 64, 4), torch.nan)
    run(body, x, y, steps, blocks=blocks, seed=seed, shared=64 * 16)
    for _ in range(steps):
        x = x + x.roll(-8)
    return same(y[..., :2], x[:, None].expand_as(y[..., :2]))


def sent(body, seed, steps=6):
    x = torch.arange(8.0)
    body = body.replace("BYTES", "128")
    y = run(body, x, torch.zeros(8, 64), steps, blocks=8, cluster=4, seed=seed, shared=17 * 16)
    return same(y, expected_of_exchange(x, steps))


def notices(program, body, seed):
    try:
        return not program(body, seed)
    except AssertionError:
        return True


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("program", "body"), [(copied, COPIES), (sent, SENDS)], ids=["copies", "sends"])
def test_what_is_waited_for_has_landed(program, body, seed):
    assert program(body, seed)


EXPECT = "if (i == 0) arrivals_expect(arrivals + step % 2, BYTES);"


@pytest.mark.parametrize(
    ("program", "body", "line", "which", "always"),
    [(copied, COPIES, "copies_arrived();", 0, True),
     (copied, COPIES, "block_barrier();", 0, False),
     (copied, COPIES, "block_barrier();", 1, False),
     (sent, SENDS, "arrivals_await(arrivals + step % 2, step / 2 % 2, {});", 0, True),
     (sent, SENDS, EXPECT, 0, True),
     (sent, SENDS, "if (i < 2) arrivals_start(arrivals + i);", 0, True),
     (sent, SENDS, "cluster_barrier();", 0, False),
     (sent, SENDS, "block_barrier();", 0, False)],
)  # fmt: skip
def test_a_missing_wait_for_what_lands_late_is_noticed(program, body, line, which, always):
    noticed = [notices(program, without(body, line, which), seed) for seed in range(12)]
    assert all(noticed) if always else any(noticed)


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
    assert module.resident("kernel", threads=64, shared=0, cluster=4) == 2
