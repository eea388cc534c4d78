"""One run: train, choose the best checkpoint, test it once, and leave a result."""

import csv
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import LearningRateMonitor

from recurlab.config import Config, TrainerConfig, load
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError
from recurlab.files import write_text
from recurlab.problems.classification import Classification
from recurlab.problems.problem import Problem
from recurlab.training import processes, ranks
from recurlab.training.build import Facts, build_problem
from recurlab.training.checkpoints import Checkpoints, Report, load_weights, take_precision
from recurlab.training.job import Identity
from recurlab.training.known import (
    FILES,
    check_data,
    check_unchanged,
    check_weights,
    is_of,
    left_as_it_was,
    recorded,
)
from recurlab.training.metrics_csv import MetricsCsv
from recurlab.training.record import keep_provenance, status_kept
from recurlab.training.resume import check_goes_on, checkpoint, content, create, find
from recurlab.training.run_dir import RunDir, read_json, write_json
from recurlab.training.signals import Signals
from recurlab.training.steps import Steps
from recurlab.training.throughput import Throughput
from recurlab.training.trainer import check_accelerator, make_trainer, on_gpu, quiet, without_denormals

Start = tuple[Path | None, dict[str, Any]]  # a checkpoint, and what it holds
BEGINNING: Start = (None, {})


@without_denormals()
def train(
    config: Config, resolved: DictConfig, report: Report | None = None, tell: Callable[[], None] = lambda: None
) -> RunDir | None:
    """Run an experiment and return its directory; None in a process other than the first of several.

    With `config.resume` a run is continued from its last checkpoint, and one that has finished is left as it is.

    Args:
        config: what is run.
        resolved: the same as it is written into the run directory.
        report: is told of each validation; only in a run of one process.
        tell: is called at each part of a step.

    Raises:
        RecurlabError: before anything is written, for data that can't be read or options that do not go together; later
            for a loss that is not finite, or a file that can't be written.
        Preempted: if the process is told to end; all is saved.
        Pruned: if `report` says that the run is not worth going on with.
    """
    check_accelerator(config.trainer)
    place, identity = ranks.place(config.trainer), Identity.of(config, resolved)
    if place is not None:
        ranks.join(place, on_gpu(config.trainer))
        ranks.agree(identity.name)
        if place.rank:
            follow(ranks.shared(None), place.rank)
            return None
    known = find(config, identity)
    if known is not None and _is_over(known, identity, place):
        return known
    facts = _facts(config, known)
    problem, data = prepare(config, 0, facts)
    _check_batches(problem, data)
    _dry_run(problem, data)
    notes = config.data.notes
    check_unchanged(config, identity.data)
    run = known or create(config, resolved, identity)
    with run.held():
        if _is_over(run, identity, place):  # by another process, for whose end this one has waited
            return run
        start = _start(run, config, resolved, identity, facts, problem)
        with Signals() as signals, left_as_it_was(run), status_kept(run):
            for note in notes:
                print(note)
            if known is not None or start[0] is not None:  # which another process may have left meanwhile
                run.job = identity.name
                run.set_status("running")
                write_text(run.config, OmegaConf.to_yaml(resolved))
            write_json(run.facts, {**facts.write(), FILES: identity.data})
            keep_provenance(run, config.seed, notes)
            if place is not None:
                ranks.shared(str(run.path))
            if place is None and config.trainer.world > 1:
                processes.run(run, config.trainer.devices, signals, config.trainer.stall_timeout, tell)
            else:
                execute(config, resolved, run, problem, data, signals, start, report, tell)
    return run


def _is_over(run: RunDir, identity: Identity, place: ranks.Place | None) -> bool:
    """Return whether a run of a job has finished; if so, other processes that wait for it are told."""
    over = run.state == "finished" and is_of(run, identity)
    if over and place is not None:
        ranks.shared(str(run.path))
    return over


def _start(
    run: RunDir, config: Config, resolved: DictConfig, identity: Identity, facts: Facts, problem: Problem
) -> Start:
    """Return from where a run goes on, before anything of it is changed; raise if it can't."""
    check_data(run, identity, facts)
    path, done = checkpoint(run, config, resolved)
    if path is not None:
        check_weights(path, done["state_dict"], problem)
        check_goes_on(run, done, config.trainer, problem)
    return run.settle(path), done


def _facts(config: Config, known: RunDir | None) -> Facts:
    """Return the facts of the data; a run that goes on keeps the units that it began with, or began without."""
    facts = Facts.of(config.data)
    with suppress(RecurlabError):
        if known is not None and known.facts.is_file():
            facts = replace(facts, units=Facts.read(read_json(known.facts)).units)
    return facts


def prepare(config: Config, rank: int, facts: Facts | None = None) -> tuple[Problem, DataModule]:
    """Return what one process of a run trains, and its share of the data."""
    seed_everything(config.seed, workers=True, verbose=False)
    data = DataModule(config.data, config.seed, rank, config.trainer.world, config.trainer.num_workers)
    data.setup()
    problem = build_problem(config, facts)
    if rank:  # the same weights, but masks of its own
        torch.manual_seed(config.seed + rank * 1_000_003)
    return problem, data


@without_denormals()
def follow(path: str, rank: int, tell: Callable[[], None] = lambda: None) -> None:
    """Be one of the processes of the run in a directory, until it ends; `tell` is called at each part of a step."""
    run = RunDir.open(path)
    if run.state != "finished":
        resolved = run.load_config()
        config = load(resolved)
        problem, data = prepare(config, rank, Facts.read(read_json(run.facts)))
        if (files := recorded(run)) is not None:
            check_unchanged(config, files)
        start = checkpoint(run, config, resolved, quiet=True)
        with Signals() as signals:
            execute(config, resolved, run, problem, data, signals, start, tell=tell)


def execute(
    config: Config,
    resolved: DictConfig,
    run: RunDir,
    problem: Problem,
    data: DataModule,
    signals: Signals,
    start: Start = BEGINNING,
    report: Report | None = None,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Train and test in this process, from a checkpoint on if there is one, and write the result."""
    try:
        with quiet():
            result = _train(config, resolved, run, problem, data, signals, start, report, tell)
        if data.rank == 0:
            _keep_confusion(run, problem, config.data.names)
            write_json(run.result, result)
            config.logger.finish(run.best, result["metrics"])
    finally:
        config.logger.close()


def _check_batches(problem: Problem, data: DataModule) -> None:
    """Raise if a stateful layer would meet another batch size within an epoch."""
    if not any(layer.stateful for layer in problem.recurrent_layers()):
        return
    for split, words in {"train": "training", "valid": "validation", "test": "test"}.items():
        key = "batch_size" if split == "train" else "eval_batch_size"
        count, size = data.sequences(split), getattr(data.data, key)
        if count is None or data.batches(split) == 1:
            continue
        if count % size:
            raise RecurlabError(f"data.{key}={size}: stateful layers need it to divide the {count} {words} sequences")
        if size % data.world:
            raise RecurlabError(f"data.{key}={size}: stateful layers need a multiple of the {data.world} processes")


@torch.no_grad()
def _dry_run(problem: Problem, data: DataModule) -> None:
    """Measure two sequences, so that a model that does not fit its data is found before anything is written."""
    batch = next(iter(data.val_dataloader()))
    lengths, resets = (None if part is None else part[:2] for part in (batch.lengths, batch.resets))
    problem.eval()
    problem.measure(problem.model(batch.inputs[:2], lengths, resets), batch.targets[:2], lengths)
    problem.train()
    problem.reset_states()


def _train(
    config: Config,
    resolved: DictConfig,
    run: RunDir,
    problem: Problem,
    data: DataModule,
    signals: Signals,
    start: Start,
    report: Report | None,
    tell: Callable[[], None],
) -> dict[str, Any]:
    path, done = start
    if path:  # Lightning loads the weights before it gives them the precision of the run
        take_precision(problem, done["state_dict"])
    metrics = None if data.rank else MetricsCsv(run.metrics, done["rows"] if path else None)
    plain: Any = OmegaConf.to_container(resolved)
    loggers = [] if metrics is None else [metrics, *config.logger.build(run.path, plain, done.get("global_step", 0))]
    kept = Checkpoints(run, problem, config.trainer, content(config, resolved), signals, metrics, report)
    throughput = Throughput()
    trainer = make_trainer(
        config.trainer,
        [kept, throughput, *([LearningRateMonitor("step")] if loggers else []), Steps(tell)],
        logger=loggers or False,
        log_every_n_steps=_log_interval(config.trainer, data),
    )
    _fit(trainer, problem, data, run, path)
    kept.log_last(trainer)
    if kept.best is None:  # stopped by max_steps before the first validation
        trainer.save_checkpoint(run.best, weights_only=True)
    trainer.strategy.barrier()  # the first process has written the checkpoint
    load_weights(problem, run.best)
    valid = {} if kept.best is None else {problem.monitor: kept.best}
    test = trainer.test(problem, data, verbose=False)[0]
    return {
        "metrics": {**valid, **test},
        "chance": config.data.chance,
        "parameters": sum(p.numel() for p in problem.parameters()),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        **throughput.result(),
        "backends": [name for layer in problem.recurrent_layers() for name in layer.backends_used.values() if name],
    }


def _fit(trainer: Trainer, problem: Problem, data: DataModule, run: RunDir, start: Path | None) -> None:
    try:
        trainer.fit(problem, data, ckpt_path=start, weights_only=True)
    except (RecurlabError, OSError) as error:
        reason: object = error
        if isinstance(error, OSError):
            reason = f"{error.filename or run.path}: can't be written: {error.strerror}"
        kept = next((path for path in (run.next, run.last, run.previous, run.best) if path.is_file()), None)
        raise RecurlabError(f"{reason}; the last good checkpoint is {kept or 'none, no epoch was finished'}") from error


def _keep_confusion(run: RunDir, problem: Problem, names: tuple[str, ...]) -> None:
    """Write how many test sequences of each class, a row, were taken for which, a column."""
    if not isinstance(problem, Classification) or problem.confusion is None:
        return
    counts = [[int(count) for count in row] for row in problem.confusion.tolist()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([names or range(len(counts)), *counts])
    write_text(run.confusion, text.getvalue())


def _log_interval(config: TrainerConfig, data: DataModule) -> int:
    """Return log_every_n_steps, but so that an epoch is logged at least once."""
    batches = data.batches("train")
    return min(config.log_every_n_steps, batches, config.limit_train_batches or batches)
