"""A sweep as a command line asks for it, checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recurlab.errors import RecurlabError, path_of
from recurlab.launch.jobs import Job, check_jobs
from recurlab.sweep.settings import SweepSettings, parse_sweep
from recurlab.sweep.space import Parameter, Range, Value, parse_space, points
from recurlab.training.job import WITHOUT_EFFECT, leaves


@dataclass(frozen=True)
class SweepPlan:
    """A sweep.

    Attributes:
        settings: of the sweep.
        words: arguments of the training that all trials share.
        base: the job of these arguments.
        space: the parameters that the trials vary.
    """

    settings: SweepSettings
    words: tuple[str, ...]
    base: Job
    space: tuple[Parameter, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> "SweepPlan":
        """Return the sweep that a command line asks for.

        Raises:
            RecurlabError: for an unknown key or name, a value out of range, or a corner of the
                space that is no config.
        """
        settings, rest = parse_sweep(words)
        for word in rest:
            if word.startswith("resume=") and word != "resume=auto":
                raise RecurlabError(f"{word}: a sweep goes on by itself when its command is given again")
        base = Job.of(rest)
        space = tuple(_fitted(parameter, base) for parameter in parse_space(settings.space))
        plan = cls(settings, tuple(rest), base, space)
        if settings.sampler == "grid":
            points(space)
        plan._check_corners()
        return plan

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.settings.name or self.base.config.experiment

    @property
    def folder(self) -> Path:
        """Where the sweep's files are."""
        folder = path_of("output_dir", self.base.config.output_dir) / self.base.config.experiment
        return folder if self.settings.name is None else folder / self.settings.name

    @cached_property
    def count(self) -> int:
        """How many trials are to finish."""
        most = len(points(self.space)) if self.settings.sampler == "grid" else self.settings.trials
        return min(self.settings.trials, most)

    @property
    def facts(self) -> dict[str, Any]:
        """What must be equal for all workers of a sweep."""
        return {
            "space": {parameter.key: parameter.written() for parameter in self.space},
            "base": leaves(self.base.resolved, but=WITHOUT_EFFECT),
            "files": [job.identity.data for job in self._corners],
            "words": list(self.words),
        }

    @cached_property
    def judged(self) -> tuple[str, str]:
        """The metric of the validations, and "min" or "max": which values are better.

        Raises:
            RecurlabError: if the model of the space's first corner can't be built.
        """
        return check_jobs([self.job([parameter.ends[0] for parameter in self.space])])[0]

    def job(self, values: Sequence[Value]) -> Job:
        """Return the run with values for the parameters; a config that is none is an error."""
        chosen = [parameter.word(value) for parameter, value in zip(self.space, values, strict=True)]
        return Job.of([*self.words, *chosen])

    @cached_property
    def _corners(self) -> list[Job]:
        """The runs at which one parameter at a time is at each of its ends."""
        first = [parameter.ends[0] for parameter in self.space]
        corners = {tuple(first)}
        for index, parameter in enumerate(self.space):
            corners |= {(*first[:index], end, *first[index + 1 :]) for end in parameter.ends}
        return [self.job(corner) for corner in sorted(corners, key=str)]

    def _check_corners(self) -> None:
        problems = set()
        for config in (job.config for job in self._corners):
            problems.add(str(config.data.problem))
            if config.trainer.num_nodes > 1:
                raise RecurlabError(f"trainer.num_nodes={config.trainer.num_nodes}: a trial is of one machine")
            if config.trainer.devices > 1 and self.settings.pruner != "none":
                raise RecurlabError(
                    f"sweep.pruner={self.settings.pruner!r}: needs trainer.devices=1, not {config.trainer.devices}"
                )
        if len(problems) > 1:
            raise RecurlabError(f"sweep.space: {' and '.join(sorted(problems))} are not judged by the same metric")


def _fitted(parameter: Parameter, base: Job) -> Parameter:
    """Return a range of whole numbers as one of any numbers, if the config holds a float."""
    if not isinstance(parameter, Range) or parameter.step is not None:
        return parameter
    usual: Any = OmegaConf.select(base.resolved, parameter.key)
    if usual is None:  # an option that no YAML file names
        usual = base.config
        for name in parameter.key.split("."):
            usual = getattr(usual, name, None)
    return replace(parameter, whole=False) if isinstance(usual, float) else parameter
