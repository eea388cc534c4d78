"""What is added to a problem's loss, or how it is summed, as a dataclass checked without importing torch."""

from dataclasses import dataclass

from recurlab.errors import check_choice, check_number


@dataclass
class Loss:
    """Options of the loss.

    Attributes:
        ar: activation regularisation, times the mean square of the last layer's output after
            dropout (Merity et al., arXiv 1708.01009).
        tar: temporal activation regularisation, times the mean square of that output's change from
            step to step, before dropout (ibid.).
        over_time: "mean", or "sum" of the steps' losses: the mean times T (as Zaremba et al., arXiv
            1409.2329).
    """

    ar: float = 0.0
    tar: float = 0.0
    over_time: str = "mean"

    def __post_init__(self) -> None:
        check_number("loss.ar", self.ar, low=0)
        check_number("loss.tar", self.tar, low=0)
        check_choice("loss.over_time", self.over_time, ("mean", "sum"))
