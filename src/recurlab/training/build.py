"""From a typed config to the model and the problem it describes."""

from dataclasses import asdict, dataclass
from typing import Any

from recurlab.config import Config, ModelConfig
from recurlab.data.data import Data, Moments
from recurlab.errors import RecurlabError, check_integer, check_number
from recurlab.layers import Weights
from recurlab.layers.rnn import ARGUMENTS
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems import PROBLEMS
from recurlab.problems.problem import Problem


@dataclass(frozen=True)
class Facts:
    """What a model has to know of its data; kept with a run, which is read back without them.

    Attributes:
        input_size, output_size, symbols, names, units: as those of a `Data`.
    """

    input_size: int
    output_size: int
    symbols: bool
    names: tuple[str, ...]
    units: Moments = ()

    @classmethod
    def of(cls, data: Data) -> "Facts":
        """Return the facts of a data set, which may read its files."""
        return cls(data.input_size, data.output_size, data.symbols, data.names, data.units)

    @classmethod
    def read(cls, content: dict[str, Any]) -> "Facts":
        """Return facts from what `write` gave; anything else is an error."""
        sizes, symbols, names = ("input_size", "output_size"), content.get("symbols"), content.get("names")
        for key in sizes:
            check_integer(key, content.get(key))
        if not isinstance(symbols, bool):
            raise RecurlabError(f"symbols={symbols!r}: must be true or false")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RecurlabError("names: must be a list of names")
        units = content.get("units", [])  # a run of an earlier version has learnt its targets as they are
        if not isinstance(units, list) or len(units) not in (0, content["output_size"]):
            raise RecurlabError("units: must be mean and standard deviation of each number to predict, or []")
        for pair in units:
            if not isinstance(pair, list) or len(pair) != 2:
                raise RecurlabError("units: must be pairs of mean and standard deviation")
            check_number("units", pair[0])
            check_number("units", pair[1], above=0)
        moments = tuple((float(mean), float(deviation)) for mean, deviation in units)
        return cls(content["input_size"], content["output_size"], symbols, tuple(names), moments)

    def difference(self, other: "Facts") -> str | None:
        """Say in which fact another data set differs from this one, and how; None if it differs in none.

        Other units are no difference: a model keeps its own.
        """
        for key, ours in asdict(self).items():
            if key == "units":
                continue
            theirs = getattr(other, key)
            if key == "names" and len(ours) == len(theirs):
                ours, theirs = next(((a, b) for a, b in zip(ours, theirs, strict=True) if a != b), (ours, ours))
            elif key == "names":
                ours, theirs = len(ours), len(theirs)
            if ours != theirs:
                return f"{key}: {theirs!r} instead of {ours!r}"
        return None

    def write(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def build_problem(config: Config, facts: Facts | None = None) -> Problem:
    """Return the LightningModule of a run, its model freshly drawn from torch's generator.

    Args:
        config: of the run.
        facts: of its data; None asks the data set.

    Raises:
        RecurlabError: for options that do not go together, or data that can't be read.
    """
    data, options = config.data, config.model
    facts = facts or Facts.of(data)
    kind: type[Problem] = PROBLEMS[data.problem]
    encoder = options.encoder
    if encoder == "auto":
        encoder = "embedding" if facts.symbols else "none"
    model = SequenceModel(
        facts.input_size,
        facts.output_size,
        head=kind.head,
        encoder=encoder,
        encoder_size=_encoder_size(encoder, options, facts),
        stack=options.stack,
        layer=_layer_arguments(config),
        embedding_dropout=options.embedding_dropout,
        input_dropout=options.input_dropout,
        output_dropout=options.output_dropout,
        tie_weights=options.tie_weights,
        encoder_init=options.init.encoder,
        head_init=options.init.head,
        units=facts.units,
    )
    return kind(model, config.optimizer, config.scheduler, config.loss, data)


def _encoder_size(encoder: str, options: ModelConfig, facts: Facts) -> int | None:
    """Return the size of an encoder; an embedding that is given none is at most as large as the layers."""
    if encoder != "embedding" or options.encoder_size is not None:
        return options.encoder_size
    return options.hidden_size if options.tie_weights else min(facts.input_size, options.hidden_size)


def _layer_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of `recurlab.RNN`."""
    model = config.model
    init, constraint, regularizer = model.init, model.constraint, model.regularizer
    return {
        **{key: value for key, value in vars(model).items() if key in ARGUMENTS},
        "cell": config.cell,
        "recurrence": config.recurrence.name,
        "heads": config.recurrence.heads,
        "backend": config.backend,
        "input_weights": Weights(init.input, None, constraint.input, regularizer.input),
        "recurrent_weights": Weights(init.recurrent, init.last_recurrent, constraint.recurrent, regularizer.recurrent),
        "biases": Weights(init.bias, None, constraint.bias, regularizer.bias),
        "gate_bias": init.gate_bias,
    }
