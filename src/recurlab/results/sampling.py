"""How symbols are drawn from a language model: the options, checked without importing torch."""

from dataclasses import dataclass

from recurlab.errors import check_integer, check_number


@dataclass(frozen=True)
class Sampling:
    """How symbols are drawn.

    Attributes:
        length: how many, characters or words.
        temperature: that the scores are divided by; near 0 the most likely symbol is always taken.
        top_k: draws from the k most likely symbols; None from all.
        seed: of the draws.
    """

    length: int = 500
    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("length", self.length)
        check_number("temperature", self.temperature, above=0)
        if self.top_k is not None:
            check_integer("top_k", self.top_k)
        check_integer("seed", self.seed, low=0, high=2**63 - 1)
