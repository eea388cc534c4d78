"""The emulation of what a GPU copies and sends without waiting: right kernels run right, wrong ones are told."""

import pytest
import torch

from recurlab.fuse.cpu import compiler
from tiny_kernels import run, same, sums_of_clusters, without

pytestmark = pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
SEEDS = range(6)

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
        Arrivals *const counter = arrivals + step % 2;
        if (i < 8) cluster_send(in_cluster(now + rank * 2 + i % 2, i / 2), words, in_cluster(counter, i / 2));
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
    return same(y, sums_of_clusters(x, steps))


def notices(program, body, seed):
    try:
        return not program(body, seed)
    except AssertionError:
        return True


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("program", "body"), [(copied, COPIES), (sent, SENDS)], ids=["copies", "sends"])
def test_what_is_waited_for_has_landed(program, body, seed):
    assert program(body, seed)


AWAIT_ARRIVALS = "arrivals_await(arrivals + step % 2, step / 2 % 2, {});"
START = "if (i < 2) arrivals_start(arrivals + i);"
EXPECT = "if (i == 0) arrivals_expect(arrivals + step % 2, BYTES);"


@pytest.mark.parametrize(
    ("program", "body", "line", "which", "always"),
    [(copied, COPIES, "copies_arrived();", 0, True),
     (copied, COPIES, "block_barrier();", 0, False),
     (copied, COPIES, "block_barrier();", 1, False),
     (sent, SENDS, AWAIT_ARRIVALS, 0, True),
     (sent, SENDS, EXPECT, 0, True),
     (sent, SENDS, START, 0, True),
     (sent, SENDS, "cluster_barrier();", 0, False),
     (sent, SENDS, "block_barrier();", 0, False)],
)  # fmt: skip
def test_a_missing_wait_for_what_lands_late_is_noticed(program, body, line, which, always):
    noticed = [notices(program, without(body, line, which), seed) for seed in range(12)]
    assert all(noticed) if always else any(noticed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("BYTES", "112", "bytes than are expected|in the middle of a round|to a block that has ended"),
     ("BYTES", "144", "on at arrivals_await of `arrivals_await(arrivals + step % 2, step / 2 % 2, {});`"),
     (EXPECT, f"{EXPECT} {EXPECT}", "arrivals_expect: a second time in a round"),
     (AWAIT_ARRIVALS, AWAIT_ARRIVALS.replace("step / 2 %", "step %"), "not of round 0, which is the next one"),
     (AWAIT_ARRIVALS, f"if (step >= 4 || i != 40) {AWAIT_ARRIVALS}", "of round 0, after the one behind it"),
     (START, f"{START} {START}", "arrivals_start: not in 8 aligned bytes of the block's shared memory, or not once"),
     (START, START.replace("+ i)", "+ i - 2)"), "arrivals_start: not in 8"),
     ("words, in_cluster(counter, i / 2)", "words, in_cluster(counter, 3 - i / 2)", "another block's counter"),
     ("now + rank * 2 + i % 2", "(char *)now + 8", "cluster_send: not 16 aligned bytes of shared memory"),
     ("float mine", "if (i == 0) arrivals_expect((Arrivals *)room, 16);\nfloat mine", "of what was not started")],
)  # fmt: skip
def test_sends_that_go_astray_are_told(old, new, message):
    for seed in (0, 1):
        with pytest.raises(AssertionError) as caught:
            sent(SENDS.replace(old, new), seed)
        assert any(one in str(caught.value) for one in message.split("|"))


@pytest.mark.parametrize("to", ["room + 64", "(Words *)((unsigned *)room + 1)", "all"])
def test_copies_that_go_astray_are_told(to):
    with pytest.raises(AssertionError, match="not of 16 aligned bytes to the block's shared memory"):
        copied(COPIES.replace("room + k, all", f"{to}, all"), 0)
    with pytest.raises(AssertionError, match="ends with copies that were not waited for"):
        copied(COPIES + "copy_coherent(room + i, all + i);", 0)
