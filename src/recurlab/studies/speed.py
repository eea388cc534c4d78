"""A study of speed as its study.yaml defines it. No torch here."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from recurlab.bench.settings import BenchSettings, Shape, parse_bench
from recurlab.errors import RecurlabError, check_choice
from recurlab.studies.definition import check_given

SCALES = ("cpu", "gpu")
SIZES = {"T": "steps", "B": "batch", "H": "hidden"}


@dataclass
class SpeedStudy:
    """The content of the study.yaml of a study of speed.

    Attributes:
        title, question: lines for people.
        bench: settings of ``recurlab bench`` for each scale; of the shapes the first is the base,
            from which each other one differs in T, B or H.
        beside: settings of another one, at scale cpu: our layers beside those of other packages.
    """

    title: str = ""
    question: str = ""
    bench: dict[str, list[str]] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = Path()  # where it was read
        check_given(self, "title", "question", "bench")
        for name, words in self.bench.items():
            check_choice("bench", name, SCALES)
            base, *others = parse_bench(words).shapes
            for shape in others:
                differing(base, shape)
        parse_bench(self.beside)

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return self.path.parent

    def runs(self, scale: str) -> list[BenchSettings]:
        """Return all that is measured at a scale."""
        return [self.settings(scale), *([self.packages] if self.beside and scale == "cpu" else [])]

    @property
    def packages(self) -> BenchSettings:
        """What is measured beside other packages, with its results in the study's folder."""
        return replace(parse_bench(self.beside), output=str(self.folder))

    def settings(self, scale: str) -> BenchSettings:
        """Return what is measured at a scale, with its results in the study's folder."""
        check_choice("scale", scale, self.bench)
        return replace(parse_bench(self.bench[scale]), output=str(self.folder))


def size_of(shape: Shape, size: str) -> int:
    """Return T, B or H of a shape."""
    return int(getattr(shape, SIZES[size]))


def differing(base: Shape, shape: Shape) -> str:
    """Return the one size, T, B or H, in which a shape differs from the first one; raise for any other difference."""
    found = [size for size in SIZES if size_of(base, size) != size_of(shape, size)]
    if len(found) != 1 or shape.features != base.features:
        raise RecurlabError(f"bench: shapes={shape}: must differ from the first one, {base}, in one of T, B and H")
    return found[0]
