"""What is measured on a GPU for the goals of the fused kernels, most important first."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from recurlab.bench.goals import OPTIONS
from recurlab.bench.settings import BenchSettings, Shape

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Sizes:
    """The shapes of a plan.

    Attributes:
        many: diagonal cells that can fill a GPU, few input features: what they read and write is
            theirs.
        few: diagonal cells that are too small for that.
        beside: the diagonal GRU beside torch's dense one.
        dense: dense cells, as many input features as units, as in a stack of layers.
        options: the diagonal and the dense shape for what zoneout, masks, resets and recurrent
            dropout cost.
        repeats: timings of each candidate.
    """

    many: tuple[Shape, ...]
    few: tuple[Shape, ...]
    beside: Shape
    dense: tuple[Shape, ...]
    options: tuple[Shape, Shape]
    repeats: int


FULL = Sizes(
    many=(Shape(2048, 32, 1024, 64), Shape(2048, 16, 1024, 64), Shape(1024, 128, 1024, 64), Shape(2048, 33, 1000, 64)),
    few=(Shape(4096, 1, 128, 64), Shape(4096, 8, 128, 64), Shape(4096, 4, 512, 64), Shape(4096, 31, 257, 64)),
    beside=Shape(1024, 32, 1024, 64),
    dense=tuple(Shape(512, batch, hidden, hidden) for batch in (16, 64, 128, 1) for hidden in (512, 1024, 256, 128)),
    options=(Shape(2048, 32, 1024, 64), Shape(512, 64, 512, 512)),
    repeats=7,
)
# A trial of the plan itself, on any machine.
TINY = Sizes(
    many=(Shape(3, 16, 1024, 2),),
    few=(Shape(3, 2, 5, 2),),
    beside=Shape(4, 2, 9, 2),
    dense=(Shape(3, 2, 6, 6), Shape(4, 1, 7, 7)),
    options=(Shape(3, 2, 5, 2), Shape(3, 2, 6, 6)),
    repeats=1,
)


@dataclass(frozen=True)
class Item:
    """Settings of one shape; `beside`: torch's layer is measured with it."""

    settings: BenchSettings
    beside: bool

    @property
    def shape(self) -> Shape:
        """The shape."""
        return self.settings.shapes[0]

    def __str__(self) -> str:
        wanted = self.settings
        names = [*wanted.cells, wanted.dtype, str(self.shape), *(["with options"] if wanted.options else [])]
        return " ".join(names)


def items(sizes: Sizes, device: str, output: str) -> list[Item]:
    """Return all that is measured, in its order."""
    return list(
        _ordered(sizes, BenchSettings(device=device, output=output, tf32=True, alone=True, repeats=sizes.repeats))
    )


def _ordered(sizes: Sizes, common: BenchSettings) -> Iterator[Item]:
    diagonal, (wide, square) = ("indrnn", "indy_gru", "indy_lstm"), sizes.options

    def item(cells: tuple[str, ...], shape: Shape, dtype: str, *, beside: bool = False, options: bool = False) -> Item:
        chosen, backends = OPTIONS if options else (), ("torch", "fused") if beside else ("fused",)
        wanted = replace(common, cells=cells, shapes=(shape,), dtype=dtype, options=chosen, backends=backends)
        return Item(wanted, beside)

    first, *others = sizes.many
    for dtype in ("bfloat16", "float32"):
        for shape in sizes.dense:
            for cell in ("gru", "lstm"):
                yield item((cell,), shape, dtype, beside=True)
    for dtype in PRECISIONS[:2]:
        yield item(diagonal, first, dtype)
    for dtype in PRECISIONS[:2]:
        yield item(("indy_gru",), sizes.beside, dtype, beside=True)
    for cell, shape in (("indy_gru", wide), ("gru", square), ("lstm", square), ("indrnn", wide), ("indy_lstm", wide)):
        for dtype in PRECISIONS[:2]:
            yield item((cell,), shape, dtype, options=True)
    for shape in (*sizes.few, *others):
        for dtype in PRECISIONS[:2]:
            yield item(diagonal, shape, dtype)
    # In bfloat16 torch gathers the weights in every call, or has no cuDNN: float16 is the harder
    # yardstick.
    for cell in ("gru", "lstm"):
        for shape in sizes.dense:
            yield item((cell,), shape, PRECISIONS[2], beside=True)
