"""The process of one job; it saves and ends when the process that started it is gone."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from omegaconf import OmegaConf

from recurlab.config import load
from recurlab.errors import Preempted, Pruned, RecurlabError, one_line
from recurlab.imports import importing
from recurlab.launch.launchers import Local
from recurlab.parents import end_with
from recurlab.process import prepare_process

Ask = Callable[[int, float], bool]  # given step and validation metric; returns whether to prune
GRACE = 30.0  # seconds that a run has to save when it is told to end
BETWEEN = 0.2  # least seconds between two steps that are reported


def job_main(
    connection: Connection,
    life: Connection,
    values: dict[Any, Any],
    environment: dict[str, str],
    threads: int,
    quiet: bool,
    asked: bool,
) -> None:
    """Run a job and say how it ended.

    Args:
        connection: receives ("validated", step, value), which is answered by whether to prune;
            ("step",) now and then while steps are made; and at the end
            ("ended", state, run directory, reason).
        life: a pipe; the process that started this one holds the other end while it lives.
        values: the resolved config of the run.
        environment: of the process that started this one; the forkserver's may be older.
        threads: of torch; 0 leaves the number to torch.
        quiet: whether all output is discarded.
        asked: whether validations are reported.
    """
    end_with(life.fileno(), GRACE)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the default, for data workers of its own
    prepare_process()
    if quiet:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)

    def ask(step: int, value: float) -> bool:
        connection.send(("validated", step, value))
        return bool(connection.recv())

    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told > BETWEEN:
            told = time.monotonic()
            with suppress(OSError):  # the other process may be gone: then `life` ends this one
                connection.send(("step",))

    connection.send(("ended", *_run(values, threads, ask if asked else None, tell)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # does not wait for threads that a library has left


def _run(values: dict[Any, Any], threads: int, ask: Ask | None, tell: Callable[[], None]) -> tuple[str, str, str]:
    try:
        resolved = OmegaConf.create(values)
        config = load(resolved)
    except RecurlabError as error:
        return "failed", "", one_line(error)
    with importing():
        import torch

        from recurlab.results.figures import draw_curves
        from recurlab.training.job import Identity
        from recurlab.training.resume import find_run
        from recurlab.training.run import train

    if threads:
        torch.set_num_threads(threads)

    def ended(state: str, error: BaseException | None = None) -> tuple[str, str, str]:
        known = find_run(config, Identity.of(config, resolved))
        reason = "" if error is None else one_line(error) or type(error).__name__
        if error is not None and not isinstance(error, RecurlabError | Preempted | Pruned):
            reason = f"{type(error).__name__}: {reason}"
        return state, "" if known is None else str(known.path), reason

    try:
        run = train(config, resolved, ask, tell)
        assert run is not None  # None is for the ranks of several processes
        draw_curves(run.path)
        return "finished", str(run.path), ""
    except Pruned as stop:
        return ended("pruned", stop)
    except (Preempted, KeyboardInterrupt) as stop:
        return ended("preempted", stop)
    except Exception as error:
        return ended("failed", error)


def check_main(connection: Connection, life: Connection, jobs: list[dict[Any, Any]]) -> None:
    """Build the model of each job; send the first error, else "" and each job's metric and mode."""
    end_with(life.fileno(), GRACE)
    from recurlab.training.build import build_problem
    from recurlab.training.trainer import check_accelerator

    try:
        metrics = []
        for values in jobs:
            config = load(OmegaConf.create(values))
            if isinstance(config.launcher, Local):
                check_accelerator(config.trainer)
            problem = build_problem(config)
            metrics.append((problem.monitor, problem.mode))
        connection.send(("", metrics))
    except RecurlabError as error:
        connection.send((one_line(error), []))
