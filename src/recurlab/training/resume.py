"""Which run is continued, with which config, from which checkpoint."""

import json
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recurlab.compose import compose
from recurlab.config import Config, TrainerConfig, load
from recurlab.errors import RecurlabError, did_you_mean, one_line, path_of, say
from recurlab.former import flat_cell
from recurlab.training.job import WITHOUT_EFFECT, Identity, digest, leaves, places
from recurlab.training.known import is_as_old, is_of
from recurlab.training.run_dir import RunDir

if TYPE_CHECKING:
    from recurlab.problems.problem import Problem
    from recurlab.training.checkpoint_file import Checkpoint

LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.stopping_threshold")  # what a longer run may differ in
PROCESSES = ("trainer.devices", "trainer.num_nodes")  # see `check_goes_on`
CHANGEABLE = (
    *dict.fromkeys(key for key in (*WITHOUT_EFFECT, *Identity.PLACES) if key != "output_dir"),
    *LENGTH,
    *PROCESSES,
)


def compose_train(words: list[str]) -> tuple[Config, DictConfig]:
    """Return the config of a training, typed and resolved: that of the run, where ``resume=<its directory>`` is among
    the words; other words must agree with it, or be `CHANGEABLE`.

    Raises:
        RecurlabError: as `recurlab.compose.compose`, and for words that do not agree with the run.
    """
    given = [word.partition("=")[2] for word in words if word.partition("=")[0] == "resume"]
    if not given or given[-1] in ("auto", "null", ""):
        return compose(words)
    path = given[-1] if path_of("resume", given[-1]).exists() else given[-1].strip("'\"")
    saved = RunDir.open(path).load_config()
    rest = [word for word in words if word.partition("=")[0] != "resume"]
    groups = [word for word in rest if word.partition("=")[0].partition(".")[0] in ("logger", "launcher")]
    plain = [word for word in rest if word not in groups]
    if any(word.partition("=")[0] not in CHANGEABLE for word in plain):
        plain = _checked(path, saved, rest)
    # A plugin is a user's code, and a launcher has lines of shell: what only the run's directory names is not run.
    changes: list[Any] = [{"plugins": [], "resume": path}, OmegaConf.from_dotlist(plain)]
    composed = compose(groups)[1]
    changes += [
        {key: composed[key]} for key in {"launcher", *(word.partition("=")[0].partition(".")[0] for word in groups)}
    ]
    try:
        for change in changes:
            for key, value in change.items():
                OmegaConf.update(saved, str(key), value, merge=key not in ("logger", "launcher", "plugins"))
    except OmegaConfBaseException as error:
        raise RecurlabError(f"{RunDir.open(path).config} with {plain}: {str(error).splitlines()[0]}") from error
    return _load(path, saved), saved


def changed_words(run: RunDir, resolved: DictConfig) -> list[str]:
    """Return the words by which a config differs from that of a run, where they say how it is to go on."""
    saved, keys = run.load_config(), (*LENGTH, *Identity.PLACES, "data.verify")
    values = {key: OmegaConf.select(resolved, key) for key in keys}
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value != OmegaConf.select(saved, key)]


def _load(path: str, saved: DictConfig) -> Config:
    try:
        return load(saved)
    except RecurlabError as error:
        raise RecurlabError(f"{error}; if run={path!r} had plugins=[...], give them again") from error


def _checked(path: str, saved: DictConfig, words: list[str]) -> list[str]:
    """Return the words that may be other than in the run's config; raise for any other that is."""
    composed = compose(words)[1]
    saved = saved.copy()
    if isinstance(saved.get("cell"), DictConfig):
        saved.cell = flat_cell(saved.cell)
    ours, theirs = leaves(saved), leaves(composed)
    for key in sorted({*ours, *theirs}):
        if not key.startswith(CHANGEABLE) and ours.get(key) != theirs.get(key):
            raise RecurlabError(
                f"{key}={theirs.get(key)!r}: run={path!r} has {ours.get(key)!r}; a run that is continued may only be "
                f"given other {', '.join(CHANGEABLE)}{did_you_mean(key, CHANGEABLE, cutoff=0.8)}"
            )
    return [word for word in words if word.partition("=")[0] in CHANGEABLE]


def find_run(config: Config, identity: Identity) -> RunDir | None:
    """Return the run that `config.resume` names, None where there is none yet."""
    if config.resume is None:
        return None
    if config.resume == "auto":
        return RunDir.find(
            config.output_dir, config.experiment, lambda run: is_of(run, identity) and is_as_old(run, identity, config)
        )
    return RunDir.open(config.resume)


def create_run(config: Config, resolved: DictConfig, identity: Identity) -> RunDir:
    """Make a run directory: with ``resume=auto`` the one that belongs to the job, else a new one."""
    name = identity.name if config.resume == "auto" else None
    return RunDir.create(config.output_dir, config.experiment, resolved, identity.name, name)


def content_name(config: Config, resolved: DictConfig) -> str:
    """Return the name of what checkpoints are of: the job, but for its length, its processes and the files it reads."""
    return digest(resolved, but=(*LENGTH, *PROCESSES, *places(config)))


def last_checkpoint(run: RunDir, config: Config, resolved: DictConfig, quiet: bool = False) -> "Checkpoint | None":
    """Return the last checkpoint from which a run can go on, None where it has not come so far.

    One that is damaged, or of another run, is passed over with a line on the standard error, and so
    is one for which metrics.csv has too few rows, unless there is no other.

    Args:
        run: that is continued.
        config, resolved: its config.
        quiet: whether another process writes these lines.

    Raises:
        RecurlabError: if there are checkpoints, and none is any good.
    """
    from recurlab.training.checkpoint_file import Checkpoint
    from recurlab.training.metrics_csv import read_rows

    names = content_name(config, resolved), digest(resolved, but=LENGTH)  # the second is that of earlier versions
    lines: list[str] = []
    incomplete = None
    rows = len(read_rows(run.metrics))
    for path in (run.next, run.last, run.previous):
        if not path.is_file():
            continue
        try:
            found = Checkpoint.read(path)
            if found.content not in names:
                raise RecurlabError("it is of another run")
            needed = found.rows
        except Exception as error:  # torch raises many types for a damaged file
            lines.append(f"{path}: not a checkpoint of this run: {one_line(error)[:200] or type(error).__name__}")
            continue
        if rows >= needed:
            break
        lines.append(f"{run.metrics}: of {needed} rows before {path.name} only {rows} can be read")
        incomplete = incomplete or (found, path, len(lines))
    else:
        if incomplete is None and lines:
            raise RecurlabError(f"{lines[0]}; no other can be used: start anew without resume")
        if incomplete is None:
            return None
        found, path, count = incomplete
        del lines[count:]
    for line in () if quiet else lines:
        say(f"{line}; going on from {path.name}")
    return found


def check_goes_on(run: RunDir, found: "Checkpoint", config: TrainerConfig, problem: "Problem") -> None:
    """Raise if a run that is continued would not arrive where one of its config arrives that was never stopped.

    Args:
        run: that is continued.
        found: the checkpoint from which it goes on.
        config: of the run as it is to be now.
        problem: what is trained.

    Raises:
        RecurlabError: if it is to be shorter than it is, or in another number of processes where
            that makes a difference.
    """
    from recurlab.training.trainer import on_gpu

    for name, done in found.lengths.items():
        limit = getattr(config, name)
        if 0 <= limit < done:
            raise RecurlabError(f"trainer.{name}={limit}: run={str(run.path)!r} has come to {done}")
    before, differs = len(found.random), None
    if found.drawn:
        differs = "draws random numbers of its own, as for dropout or zoneout"
    elif problem.normalizes_batches and not on_gpu(config):
        differs = "normalises its part of a batch, on CPUs"
    if before != config.world and differs:
        raise RecurlabError(
            f"trainer.devices={config.devices}, trainer.num_nodes={config.num_nodes}: run={str(run.path)!r} was "
            f"trained with {before} in all, each of which {differs}: with {config.world} its numbers would be others"
        )
