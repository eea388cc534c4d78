"""A study as its study.yaml defines it: the runs of a grid of levels, and what is read from them. No torch here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Optional

from recurlab.errors import RecurlabError, check_choice, check_integer, check_number
from recurlab.problems.metrics import MODES
from recurlab.studies import SCALES

FOLDER = Path("experiments")
FILE = "study.yaml"
# Columns of results.csv beside those of the factors, the metric and the measures.
BEFORE = ("scale",)
AFTER = (
    "chance", "parameters", "epochs", "steps", "seconds", "sequences_per_second", "backend", "state", "reason",
    "device", "threads", "commit", "date", "job",
)  # fmt: skip
PUBLISHED = ("source", "metric", "value", "note")
Levels = Mapping[str, str]  # the level of each factor


@dataclass
class Adjust:
    """Further overrides where all of `when` hold: a level, or one of a list of levels, of each factor named."""

    when: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


@dataclass
class Measure:
    """A number from metrics.csv.

    Attributes:
        first_step: a column; the measure is the optimiser's step of its first value `below` or
            `above` a bound.
        at_seconds: the measure is the last value of the column `of` within so many seconds of
            training.
    """

    first_step: Optional[str] = None  # noqa: UP045  OmegaConf reads Optional
    below: Optional[float] = None  # noqa: UP045
    above: Optional[float] = None  # noqa: UP045
    at_seconds: Optional[float] = None  # noqa: UP045
    of: Optional[str] = None  # noqa: UP045

    def check(self, key: str) -> None:
        """Raise unless exactly the keys of one of the two forms are given."""
        given = {name for name, value in vars(self).items() if value is not None}
        if given not in ({"first_step", "below"}, {"first_step", "above"}, {"at_seconds", "of"}):
            raise RecurlabError(
                f"{key}={sorted(given)}: must have first_step and one of below and above, or at_seconds and of"
            )
        if self.at_seconds is not None:
            check_number(f"{key}.at_seconds", self.at_seconds, above=0)


@dataclass
class Scale:
    """How large a study is run.

    Attributes:
        seeds: of the runs of each combination of levels.
        levels: those that are run, where they are not all of a factor's.
        overrides: of every run.
    """

    seeds: list[int] = field(default_factory=list)
    levels: dict[str, list[str]] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


@dataclass
class Figure:
    """The picture: `y` over the levels of `x`, a colour for each of `hue`, a panel for each of the other factors."""

    x: str = ""
    y: Optional[str] = None  # noqa: UP045
    hue: Optional[str] = None  # noqa: UP045
    log: bool = False


@dataclass(frozen=True)
class Run:
    """One run of a study: its scale, levels and seed, and the overrides that make them."""

    scale: str
    levels: Levels
    seed: int
    words: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The cells of results.csv that tell it from other runs."""
        return (self.scale, *self.levels.values(), str(self.seed))

    def __str__(self) -> str:
        return " ".join([*self.levels.values(), f"seed {self.seed}"])


@dataclass
class Study:
    """The content of study.yaml; see `Adjust`, `Measure`, `Scale` and `Figure`.

    Attributes:
        title, question: lines for people.
        metric: of result.json.
        better: whether it is the smaller the better (min) or the larger (max).
        overrides: of every run.
        factors: overrides for each level of each factor.
        skip: combinations of levels that are not run.
    """

    title: str = ""
    question: str = ""
    metric: str = ""
    better: str = "min"
    overrides: list[str] = field(default_factory=list)
    factors: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    adjust: list[Adjust] = field(default_factory=list)
    skip: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, Measure] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    figure: Figure = field(default_factory=Figure)

    def __post_init__(self) -> None:
        self.path = Path(FILE)  # where it was read
        check_given(self, "title", "question", "metric", "factors", "scales")
        check_choice("better", self.better, MODES)
        taken = {*BEFORE, "seed", self.metric, *AFTER, *PUBLISHED}
        for name in (*self.factors, *self.measures):
            if name in taken:
                raise RecurlabError(f"{name!r}: another column of results.csv has this name, choose another")
            taken.add(name)
        for name, levels in self.factors.items():
            if not levels:
                raise RecurlabError(f"factors.{name}={levels}: needs at least one level")
        for index, adjust in enumerate(self.adjust):
            self._check_levels(f"adjust[{index}].when", adjust.when)
        for index, when in enumerate(self.skip):
            self._check_levels(f"skip[{index}]", when)
        for name, measure in self.measures.items():
            measure.check(f"measures.{name}")
        self._check_scales()
        self._check_figure()

    def _check_scales(self) -> None:
        for name, scale in self.scales.items():
            check_choice("scales", name, SCALES)
            if not scale.seeds or len({*scale.seeds}) < len(scale.seeds):
                raise RecurlabError(f"scales.{name}.seeds={scale.seeds}: must be at least one seed, each once")
            for seed in scale.seeds:
                check_integer(f"scales.{name}.seeds", seed, low=0, high=2**32 - 1)
            self._check_levels(f"scales.{name}.levels", scale.levels)

    def _check_figure(self) -> None:
        check_choice("figure.x", self.figure.x, self.factors)
        if self.figure.hue is not None:
            check_choice("figure.hue", self.figure.hue, [name for name in self.factors if name != self.figure.x])
        if self.figure.y is not None:
            check_choice("figure.y", self.figure.y, [self.metric, *self.measures])

    def _check_levels(self, key: str, chosen: Mapping[str, Any]) -> None:
        """Raise unless the keys are factors and the values levels of them, or lists of levels."""
        if not chosen and not key.endswith(".levels"):
            raise RecurlabError(f"{key}={{}}: must name a factor and its level")
        for factor, levels in chosen.items():
            check_choice(key, factor, self.factors)
            for level in as_list(levels):
                check_choice(f"{key}.{factor}", level, self.factors[factor])

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return self.path.parent

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of results.csv."""
        return (*BEFORE, *self.factors, "seed", self.metric, *self.measures, *AFTER)

    def judged(self, levels: Levels) -> "str | Measure":
        """Return what runs of a combination of levels are judged by: a metric of result.json, or a measure."""
        return self.metric

    def turn(self, run: Run) -> int:
        """Return the rank of a run in the queue: runs of a lower rank go first."""
        return 0

    def combinations(self, scale: str) -> list[Levels]:
        """Return the combinations of levels that are run at a scale."""
        chosen = self.scales[scale].levels
        levels = [[one for one in names if one in chosen.get(factor, names)] for factor, names in self.factors.items()]
        found = [dict(zip(self.factors, combination, strict=True)) for combination in product(*levels)]
        return [one for one in found if not any(holds(when, one) for when in self.skip)]

    def runs(self, scale: str) -> Iterator[Run]:
        """Give the runs of a scale.

        Raises:
            RecurlabError: for a scale that the study has not, or a run of two experiments.
        """
        check_choice("scale", scale, self.scales)
        for levels in self.combinations(scale):
            words = self.words(scale, levels)
            if len(twice := [word for word in words if word.startswith("experiment=")]) > 1:
                raise RecurlabError(
                    f"{self.folder}: {' '.join(levels.values())}: {' '.join(twice)}: a run has one experiment"
                )
            for seed in self.scales[scale].seeds:
                yield Run(scale, levels, seed, (*words, f"seed={seed}"))

    def words(self, scale: str, levels: Levels) -> list[str]:
        """Return the overrides of the runs of a combination of levels."""
        words = [f"trainer.accelerator={SCALES[scale]}", *self.overrides, *self.scales[scale].overrides]
        for factor, level in levels.items():
            words += self.factors[factor][level]
        for adjust in self.adjust:
            words += adjust.overrides if holds(adjust.when, levels) else []
        return words


def holds(when: Mapping[str, Any], levels: Levels) -> bool:
    """Return whether a combination has, for each factor in `when`, the level or one of the levels named there."""
    return all(levels[factor] in as_list(wanted) for factor, wanted in when.items())


def as_list(value: Any) -> list[str]:
    """Return a level or a list of levels as a list."""
    return value if isinstance(value, list) else [value]


def check_given(thing: object, *keys: str) -> None:
    """Raise unless a dataclass has values for these keys."""
    for key in keys:
        if not getattr(thing, key):
            raise RecurlabError(f"{key}={getattr(thing, key)!r}: must be given")
