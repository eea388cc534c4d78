"""What one process of a run does: train its share of the data, test the best checkpoint once, and leave a result."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything

from recurlab.config import Config, TrainerConfig, load
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError
from recurlab.files import write_text
from recurlab.problems.classification import Classification
from recurlab.problems.problem import Problem
from recurlab.training.build import Facts, build_problem
from recurlab.training.checkpoint_file import Checkpoint, load_weights, take_precision
from recurlab.training.checkpoints import Checkpoints, Report
from recurlab.training.heartbeat import Heartbeat
from recurlab.training.known import check_unchanged, recorded
from recurlab.training.loop import Rates, StepLog
from recurlab.training.metrics_csv import MetricsCsv
from recurlab.training.resume import content_name, last_checkpoint
from recurlab.training.run_dir import RunDir, read_json, write_json
from recurlab.training.signals import Signals
from recurlab.training.throughput import Throughput
from recurlab.training.trainer import make_trainer, quiet, without_denormals


@dataclass
class Training:
    """What one process of a run trains, and whom it tells how that goes.

    Attributes:
        config: of the run.
        resolved: the same, as it is written into the run directory.
        run: the run directory.
        problem: what is trained.
        data: the process's share of them.
        start: the checkpoint from which it goes on; None at the beginning.
        signals: that may tell the process to end.
        report: is told of each validation.
        tell: is called at each part of a step.
    """

    config: Config
    resolved: DictConfig
    run: RunDir
    problem: Problem
    data: DataModule
    start: Checkpoint | None = None
    signals: Signals = field(default_factory=Signals)
    report: Report | None = None
    tell: Callable[[], None] = lambda: None


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
        start = last_checkpoint(run, config, resolved, quiet=True)
        training = Training(config, resolved, run, problem, data, start, tell=tell)
        with training.signals:
            execute(training)


def execute(training: Training) -> None:
    """Train and test in this process, and write the result."""
    logger, run = training.config.logger, training.run
    try:
        with quiet():
            result = _train_and_test(training)
        if training.data.rank == 0:
            _keep_confusion(run, training.problem, training.config.data.names)
            write_json(run.result, result)
            logger.finish(run.best, result["metrics"])
    finally:
        logger.close()


def _train_and_test(training: Training) -> dict[str, Any]:
    """Return the content of result.json."""
    config, run, problem, data = training.config, training.run, training.problem, training.data
    if training.start is not None:  # Lightning loads the weights before it gives them the precision of the run
        take_precision(problem, training.start.weights)
    kept, throughput = _checkpoints(training), Throughput()
    trainer = _trainer(training, kept, throughput)
    _fit(trainer, training)
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


def _checkpoints(training: Training) -> Checkpoints:
    """Return the callback that writes checkpoints and, in the first process, metrics.csv."""
    config, run, start = training.config, training.run, training.start
    metrics = None if training.data.rank else MetricsCsv(run.metrics, None if start is None else start.rows)
    content = content_name(config, training.resolved)
    return Checkpoints(run, training.problem, config.trainer, content, training.signals, metrics, training.report)


def _trainer(training: Training, kept: Checkpoints, throughput: Throughput) -> Trainer:
    """Return the Trainer of a run, with the loggers of its first process."""
    config, start = training.config, training.start
    loggers: list[Any] = []
    if kept.metrics is not None:
        plain: Any = OmegaConf.to_container(training.resolved)
        done = 0 if start is None else start.steps
        loggers = [kept.metrics, *config.logger.build(training.run.path, plain, done)]
    return make_trainer(
        config.trainer,
        [kept, throughput, *([Rates()] if loggers else []), StepLog(), Heartbeat(training.tell)],
        logger=loggers or False,
        log_every_n_steps=_log_interval(config.trainer, training.data),
    )


def _fit(trainer: Trainer, training: Training) -> None:
    run, start = training.run, training.start
    try:
        path = None if start is None else start.path
        trainer.fit(training.problem, training.data, ckpt_path=path, weights_only=True)
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
