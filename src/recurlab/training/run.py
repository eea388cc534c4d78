"""One run: train, choose the best checkpoint, test it once, and leave a result."""

import time
from math import ceil
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from recurlab.config import Config, TrainerConfig
from recurlab.data.module import BenchmarkData
from recurlab.errors import RecurlabError
from recurlab.tasks.task import Task
from recurlab.training.build import build_task
from recurlab.training.checkpoints import checkpointing, load_weights
from recurlab.training.provenance import provenance, uncommitted
from recurlab.training.run_dir import RunDir, write_json, write_text
from recurlab.training.throughput import Throughput
from recurlab.training.trainer import check_accelerator, make_trainer, quiet


def train(config: Config, resolved: DictConfig) -> RunDir:
    """Run an experiment and return its directory.

    Args:
        config: what is run.
        resolved: the same as it is written into the run directory.

    Raises:
        RecurlabError: before anything is written, for data that can't be read or options that do not go together; later
            for a loss that is not finite.
    """
    check_accelerator(config.trainer)
    seed_everything(config.seed, workers=True, verbose=False)
    data = BenchmarkData(config.data, config.seed)
    data.setup()
    task = build_task(config)
    _check_batches(task, data)
    _dry_run(task, data)
    run = RunDir.create(config.output_dir, config.experiment, resolved)
    try:
        with quiet():
            result = _train(config, resolved, run, task, data)
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the one into the other
        run.set_status("interrupted")
        raise KeyboardInterrupt(f"the run is kept in {run.path}") from stop
    except Exception as error:
        run.set_status("failed", reason=str(error) or type(error).__name__)
        raise
    finally:
        config.logger.close()
    write_json(run.result, result)
    run.set_status("finished")
    return run


def _check_batches(task: Task, data: BenchmarkData) -> None:
    """Raise if a stateful layer would meet a smaller batch at the end of an epoch."""
    count, size = data.size("train"), data.benchmark.batch_size
    if count % size and any(layer.stateful for layer in task.recurrent_layers()):
        raise RecurlabError(f"data.batch_size={size}: stateful layers need it to divide the {count} training sequences")


@torch.no_grad()
def _dry_run(task: Task, data: BenchmarkData) -> None:
    """Measure two sequences, so that a model that does not fit its data is found before anything is written."""
    batch = next(iter(data.val_dataloader()))
    inputs, targets = batch.inputs[:2], batch.targets[:2]
    lengths = None if batch.lengths is None else batch.lengths[:2]
    task.eval()
    task.measure(task.model(inputs, lengths), targets)
    task.train()
    task.reset_states()


def _train(config: Config, resolved: DictConfig, run: RunDir, task: Task, data: BenchmarkData) -> dict[str, Any]:
    write_json(run.provenance, provenance(config.seed))
    write_text(run.patch, uncommitted())
    best, throughput = checkpointing(run, task), Throughput()
    plain: Any = OmegaConf.to_container(resolved)
    trainer = make_trainer(
        config.trainer,
        [best, throughput],
        logger=[CSVLogger(run.path, name="", version=""), *config.logger.build(run.path, plain)],
        log_every_n_steps=_log_interval(config.trainer, data),
    )
    start = time.perf_counter()
    _fit(trainer, task, data, best)
    seconds = time.perf_counter() - start
    load_weights(task, run.best)
    score = best.best_model_score
    valid = {} if score is None else {task.monitor: score.item()}
    test = trainer.test(task, data, verbose=False)[0]
    return {
        "metrics": {**valid, **test},
        "chance": config.data.chance,
        "parameters": sum(p.numel() for p in task.parameters()),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": seconds,
        **throughput.result(),
        "backends": [name for layer in task.recurrent_layers() for name in layer.backends_used.values() if name],
    }


def _fit(trainer: Trainer, task: Task, data: BenchmarkData, best: ModelCheckpoint) -> None:
    try:
        trainer.fit(task, data)
    except RecurlabError as error:
        kept = best.last_model_path or best.best_model_path
        raise RecurlabError(f"{error}; the last good checkpoint is {kept or 'none, no epoch was finished'}") from error
    if not best.best_model_path:  # stopped by max_steps before the first validation
        assert best.dirpath is not None
        trainer.save_checkpoint(f"{best.dirpath}/best.ckpt")


def _log_interval(config: TrainerConfig, data: BenchmarkData) -> int:
    """Return log_every_n_steps, but so that an epoch, or a run of a few steps, is logged at least once."""
    batches = ceil(data.size("train") / data.benchmark.batch_size)
    limits = [config.limit_train_batches or batches, config.max_steps if config.max_steps > 0 else batches]
    return min(config.log_every_n_steps, batches, *limits)
