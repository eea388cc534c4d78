"""The CUDA programs of the measurements, compiled side by side before the GPU is used."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from recurlab.backends import fused
from recurlab.bench.candidates import cases
from recurlab.bench.layers import Candidate, Case, LayerCall, call_of, prepare_layer, shortened, small
from recurlab.bench.machine import tf32
from recurlab.bench.plan import Item
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.errors import RecurlabError, one_line
from recurlab.fuse.cuda import nvrtc


def of_items(plan: Iterable[Item], device: torch.device) -> Iterator[str]:
    """Yield the sources of all kernels that `measure` runs for the items of a plan."""
    for item in plan:
        for case in cases(item.settings):
            for settings, shape in _runs(case, item):
                # Where no kernel runs, none is compiled: sizes are all that counts.
                work = prepare_layer(Candidate(case, "fused"), shape, replace(settings, device="meta"))
                yield from of_layer(work, device, allow_tf32=settings.tf32)


def _runs(case: Case, item: Item) -> Iterator[tuple[BenchSettings, Shape]]:
    """Yield the settings and shapes of a case: compared in float32, compared as asked, timed."""
    settings, little = item.settings, small(case)
    wide = replace(settings, dtype="float32", tf32=False)
    yield from ((wide, little), (wide, shortened(little)))
    yield from ((settings, little), (settings, shortened(item.shape)), (settings, item.shape))


def of_layer(work: LayerCall, device: torch.device, *, allow_tf32: bool) -> list[str]:
    """Return the sources of a layer's kernels for a device, [] if no kernel serves it."""
    with tf32(allow_tf32):
        try:
            return fused.sources(call_of(work), device)
        except RecurlabError:
            return []


def compile_all(sources: Iterable[str], capability: tuple[int, int], seconds: float) -> list[str]:
    """Compile sources into the cache on all cores; return a line for each that can't be.

    Args:
        sources: of CUDA programs.
        capability: the compute capability.
        seconds: after these the rest is left to whoever needs it.
    """
    start, spent, wrong = time.monotonic(), list[float](), list[str]()
    every = dict.fromkeys(sources)
    missing = [source for source in every if not nvrtc.kept(source, capability)]
    print(f"{len(every) - len(missing)} of {len(every)} programs are there already", flush=True)
    if not missing:
        return wrong
    # The longest texts, those of dense gradients, take longest: none of them is to be the last.
    tasks = [(source, capability) for source in sorted(missing, key=len, reverse=True)]
    # Not forked from this one, which has threads and may have a GPU; the server keeps the
    # environment of its first use.
    context, here = multiprocessing.get_context("forkserver"), dict(os.environ)
    with context.Pool(os.cpu_count(), _enter, (here,)) as pool:
        found = pool.imap_unordered(_compile, tasks)
        try:
            for _ in tasks:
                time_spent, problem = found.next(timeout=max(0.0, start + seconds - time.monotonic()))
                spent.append(time_spent)
                wrong += [problem] if problem else []
        except multiprocessing.TimeoutError:
            print(f"time is up: {len(tasks) - len(spent)} programs are not compiled")
    print(
        f"{len(spent)} programs in {time.monotonic() - start:.0f} s, one after the other {sum(spent):.0f} s, "
        f"the longest {max(spent, default=0):.1f} s"
    )
    return wrong


def _enter(environment: dict[str, str]) -> None:
    os.environ.update(environment)


def _compile(task: tuple[str, tuple[int, int]]) -> tuple[float, str]:
    """Return the seconds that a program takes, and what is wrong with it."""
    start, problem = time.monotonic(), ""
    try:
        nvrtc.cubin(*task)
    except RecurlabError as error:
        problem = one_line(error)
    return time.monotonic() - start, problem
