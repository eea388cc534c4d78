"""A trained model and its evaluation, from a run directory."""

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from recurlab.config import Config, load
from recurlab.data.fingerprint import fingerprint
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError, one_line, say, shown
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.problem import Problem
from recurlab.training.build import Facts, build_problem
from recurlab.training.checkpoint_file import load_weights
from recurlab.training.known import recorded
from recurlab.training.run_dir import RunDir, read_json
from recurlab.training.trainer import check_accelerator, make_trainer, quiet, without_denormals

# What an evaluation may set anew: where the data are and how they are read, not what was trained.
CHANGEABLE = ("data.", "trainer.", "plugins=", "backend=")


def load_run(path: str | Path) -> SequenceModel:
    """Return the model of a run with its best weights, in evaluation mode, on the CPU.

    No code is loaded from the run directory; where the run used a user's cell, import the module
    that registers it first. Weights have the precision of the run; a run in mixed precision was
    tested under ``torch.autocast``.

    Raises:
        RecurlabError: for a directory that is no run, of another version, or without a readable
            checkpoint.
    """
    run = RunDir.open(path)
    return _load_problem(run, _config(run, [])).model.eval()


@without_denormals()
def evaluate(path: str | Path, overrides: list[str]) -> dict[str, float]:
    """Return the test metrics of a run's best checkpoint.

    Args:
        path: the run directory.
        overrides: ``key=value`` under data or trainer, as ``data.dir=...``; plugins and backend.

    Raises:
        RecurlabError: as `load_run`, and for overrides of anything else.
    """
    run = RunDir.open(path)
    config = _overridden(run, overrides)
    config.trainer.devices = config.trainer.num_nodes = 1
    check_accelerator(config.trainer)
    problem = _load_problem(run, config)
    data = DataModule(config.data, config.seed)
    data.setup("test")
    kept = recorded(run)
    if kept is not None and not any(word.startswith("data") for word in overrides) and fingerprint(config.data) != kept:
        say(f"data: the files have been changed since run={str(path)!r} was trained on them")
    if difference := _facts(run).difference(Facts.of(config.data)):
        raise RecurlabError(f"data: not as those that run={str(path)!r} was trained on: {difference}")
    with quiet():
        trainer = make_trainer(config.trainer, [], logger=False)
        return dict(trainer.test(problem, data, verbose=False)[0])


def _load_problem(run: RunDir, config: Config) -> Problem:
    problem = build_problem(config, _facts(run))
    load_weights(problem, run.best)
    return problem


def _facts(run: RunDir) -> Facts:
    content = read_json(run.facts)
    try:
        return Facts.read(content)
    except RecurlabError as error:
        raise RecurlabError(f"{run.facts}: {error}") from error


def _overridden(run: RunDir, overrides: list[str]) -> Config:
    for override in overrides:
        if not override.startswith(CHANGEABLE) or "=" not in override:
            raise RecurlabError(f"{override!r}: an evaluation may set data.*, trainer.*, plugins and backend")
    return _config(run, overrides)


def _config(run: RunDir, overrides: list[str]) -> Config:
    saved = run.load_config()
    plugins = saved.get("plugins")
    try:
        merged = OmegaConf.merge(saved, {"plugins": []}, OmegaConf.from_dotlist(overrides))
        return load(cast(DictConfig, merged))
    except RecurlabError as error:
        hint = f"; the run imported plugins={shown(plugins)}: import them first, or evaluate with plugins="
        raise RecurlabError(f"{error}{hint if plugins else ''}") from error
    except Exception as error:  # the YAML of an override, or an interpolation
        raise RecurlabError(f"{run.config} with {shown(overrides)}: {one_line(error)}") from error
