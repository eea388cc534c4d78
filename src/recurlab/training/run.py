"""One run: find or make its directory, check all that can be checked, then train in this process or in several."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from omegaconf import DictConfig, OmegaConf

from recurlab.config import Config
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError
from recurlab.files import write_text
from recurlab.problems.problem import Problem
from recurlab.training import processes, ranks
from recurlab.training.build import Facts
from recurlab.training.checkpoint_file import Checkpoint
from recurlab.training.checkpoints import Report
from recurlab.training.execute import Training, execute, follow, prepare
from recurlab.training.job import Identity
from recurlab.training.known import (
    FILES,
    check_data,
    check_unchanged,
    check_weights,
    is_of,
    left_as_it_was,
)
from recurlab.training.record import keep_provenance, status_kept
from recurlab.training.resume import check_goes_on, create_run, find_run, last_checkpoint
from recurlab.training.run_dir import RunDir, read_json, write_json
from recurlab.training.trainer import check_accelerator, on_gpu, without_denormals


@without_denormals()
def train(
    config: Config, resolved: DictConfig, report: Report | None = None, tell: Callable[[], None] = lambda: None
) -> RunDir | None:
    """Run an experiment and return its directory; None in a process other than the first of several.

    With `config.resume` a run is continued from its last checkpoint, and one that has finished is
    left as it is.

    Args:
        config: what is run.
        resolved: the same as it is written into the run directory.
        report: is told of each validation; only in a run of one process.
        tell: is called at each part of a step.

    Raises:
        RecurlabError: before anything is written, for data that can't be read or options that do
            not go together; later for a loss that is not finite, or a file that can't be written.
        Preempted: if the process is told to end; all is saved.
        Pruned: if `report` says that the run is not worth going on with.
    """
    check_accelerator(config.trainer)
    process, identity = ranks.own_rank(config.trainer), Identity.of(config, resolved)
    if process is not None:
        ranks.join(process, on_gpu(config.trainer))
        ranks.agree(identity.name)
        if process.rank:
            follow(ranks.shared(None), process.rank)
            return None
    known = find_run(config, identity)
    if known is not None and _is_over(known, identity, process):
        return known
    facts = _facts(config, known)
    problem, data = prepare(config, 0, facts)
    _check_batches(problem, data)
    _dry_run(problem, data)
    notes = config.data.notes
    check_unchanged(config, identity.data)
    run = known or create_run(config, resolved, identity)
    with run.held():
        if _is_over(run, identity, process):  # by another process, for whose end this one has waited
            return run
        check_data(run, identity, facts)
        training = Training(config, resolved, run, problem, data, report=report, tell=tell)
        training.start = _start(training)
        with training.signals, left_as_it_was(run), status_kept(run):
            for note in notes:
                print(note)
            if known is not None or training.start is not None:  # which another process may have left meanwhile
                run.job = identity.name
                run.set_status("running")
                write_text(run.config, OmegaConf.to_yaml(resolved))
            write_json(run.facts, {**facts.write(), FILES: identity.data})
            keep_provenance(run, config.seed, notes)
            if process is not None:
                ranks.shared(str(run.path))
            if process is None and config.trainer.world > 1:
                processes.run_ranks(run, config.trainer.devices, training.signals, config.trainer.stall_timeout, tell)
            else:
                execute(training)
    return run


def _is_over(run: RunDir, identity: Identity, process: ranks.ProcessRank | None) -> bool:
    """Return whether a run of a job has finished; if so, other processes that wait for it are told."""
    over = run.state == "finished" and is_of(run, identity)
    if over and process is not None:
        ranks.shared(str(run.path))
    return over


def _start(training: Training) -> Checkpoint | None:
    """Return from where a run goes on, before anything of it is changed; raise if it can't."""
    run = training.run
    found = last_checkpoint(run, training.config, training.resolved)
    if found is not None and found.path is not None:
        check_weights(found.path, found.weights, training.problem)
        check_goes_on(run, found, training.config.trainer, training.problem)
    path = run.settle(None if found is None else found.path)
    if found is not None:
        found.path = path
    return found


def _facts(config: Config, known: RunDir | None) -> Facts:
    """Return the facts of the data; a run that goes on keeps the units that it began with, or began without."""
    facts = Facts.of(config.data)
    with suppress(RecurlabError):
        if known is not None and known.facts.is_file():
            facts = replace(facts, units=Facts.read(read_json(known.facts)).units)
    return facts


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
