"""A study of published numbers as its study.yaml defines it: models on benchmarks, and recipes. No torch here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from recurlab.errors import RecurlabError, check_choice, check_number
from recurlab.problems.metrics import MODES
from recurlab.studies.definition import AFTER, BEFORE, Figure, Levels, Measure, Run, Study, check_given

RESULT = "result"  # the column that runs are judged by
COURSE = ("valid", "curve")  # columns of the best validation, and of validations at some epochs
LONG = 1.0  # core-hours; rows whose runs take as many have one seed


@dataclass
class Recipe:
    """How one model is trained.

    Attributes:
        overrides: of its runs, one of which is an experiment.
        hours: of a core that a run takes, as far as is known.
    """

    overrides: list[str] = field(default_factory=list)
    hours: float = 0.0

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return next(word.partition("=")[2] for word in self.overrides if word.startswith("experiment="))

    @property
    def changes(self) -> list[str]:
        """The overrides that change the experiment."""
        return [word for word in self.overrides if not word.startswith("experiment=")]


@dataclass
class Target:
    """What is judged on one benchmark, and in which models.

    Attributes:
        metric: of result.json; where it is not given, the measure is judged.
        measure: of metrics.csv.
        unit: of either, for people.
        better: whether it is the smaller the better (min) or the larger (max).
        valid: the column of metrics.csv whose course is kept.
        models: how each is trained.
    """

    metric: Optional[str] = None  # noqa: UP045  OmegaConf reads Optional
    measure: Optional[Measure] = None  # noqa: UP045
    unit: str = ""
    better: str = "min"
    valid: str = "valid/loss"
    models: dict[str, Recipe] = field(default_factory=dict)


@dataclass
class Reproduction(Study):
    """The content of study.yaml: of a `Study` title, question, overrides and scales, and what is trained.

    The runs have the factors benchmark and model, whose rows are in the order in which they are
    worth being run: all with the first seed of a scale before any with the second. A row whose runs
    are long has the first seed alone.

    Attributes:
        benchmarks: what is judged on each.
    """

    benchmarks: dict[str, Target] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_given(self, "benchmarks")
        for name in ("metric", "better", "factors", "adjust", "skip", "measures", "figure"):
            if getattr(self, name) != getattr(Study, name, type(getattr(self, name))()):
                raise RecurlabError(f"{name}={getattr(self, name)!r}: a study of benchmarks has none")
        for name, target in self.benchmarks.items():
            self._check(f"benchmarks.{name}", target)
        models = dict.fromkeys(model for target in self.benchmarks.values() for model in target.models)
        self.factors = {"benchmark": {name: [] for name in self.benchmarks}, "model": {name: [] for name in models}}
        self.metric, self.figure = RESULT, Figure(x="model")
        super().__post_init__()

    @staticmethod
    def _check(key: str, target: Target) -> None:
        if (target.metric is None) == (target.measure is None):
            raise RecurlabError(f"{key}: must have a metric or a measure")
        if target.measure is not None:
            target.measure.check(f"{key}.measure")
        check_choice(f"{key}.better", target.better, MODES)
        if not target.models:
            raise RecurlabError(f"{key}.models={{}}: needs at least one model")
        for model, recipe in target.models.items():
            if sum(word.startswith("experiment=") for word in recipe.overrides) != 1:
                raise RecurlabError(f"{key}.models.{model}.overrides={recipe.overrides}: must have one experiment")
            check_number(f"{key}.models.{model}.hours", recipe.hours, above=0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of results.csv."""
        return (*BEFORE, *self.factors, "seed", RESULT, *COURSE, *AFTER)

    def target(self, levels: Levels) -> Target:
        """Return what is judged of a row."""
        return self.benchmarks[levels["benchmark"]]

    def recipe(self, levels: Levels) -> Recipe:
        """Return how a row is trained."""
        return self.target(levels).models[levels["model"]]

    def judged(self, levels: Levels) -> str | Measure:
        """Return what runs of a row are judged by."""
        target = self.target(levels)
        found = target.metric or target.measure
        assert found is not None
        return found

    def combinations(self, scale: str) -> list[Levels]:
        """Return the rows, which are the same at all scales."""
        return [
            {"benchmark": name, "model": model} for name, target in self.benchmarks.items() for model in target.models
        ]

    def turn(self, run: Run) -> int:
        """Return the position of a run's seed among the seeds of its scale."""
        return self.scales[run.scale].seeds.index(run.seed)

    def runs(self, scale: str) -> Iterator[Run]:
        """Give the runs of a scale, row after row."""
        for run in super().runs(scale):
            if self.turn(run) == 0 or self.recipe(run.levels).hours < LONG:
                yield run

    def words(self, scale: str, levels: Levels) -> list[str]:
        """Return the overrides of the runs of a row."""
        return [*super().words(scale, levels), *self.recipe(levels).overrides]
