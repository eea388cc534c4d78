"""From a typed config to the model and the task it describes."""

from typing import Any

from recurlab.config import Config
from recurlab.errors import RecurlabError
from recurlab.layers.rnn import ARGUMENTS
from recurlab.models.sequence_model import SequenceModel
from recurlab.tasks import PROBLEMS
from recurlab.tasks.task import Task


def build_task(config: Config) -> Task:
    """Return the LightningModule of a run, its model freshly drawn from torch's generator.

    Raises:
        RecurlabError: for options that do not go together.
    """
    benchmark = config.data
    kind: type[Task] = PROBLEMS[benchmark.problem]
    model = SequenceModel(
        benchmark.input_size,
        benchmark.output_size,
        head=kind.head,
        encoder=config.model.encoder,
        encoder_size=config.model.encoder_size,
        stack=config.model.stack,
        layer=_layer_arguments(config),
    )
    return kind(model, config.optimizer, config.scheduler)


def _layer_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of `recurlab.RNN`."""
    model = config.model
    for option in config.cell.options:
        if option in ARGUMENTS:
            raise RecurlabError(f"cell.options.{option}: an argument of the layer, not an option of a cell")
    as_they_are = (
        "hidden_size", "num_layers", "bias", "bidirectional", "dropout", "variational", "recurrent_dropout", "zoneout",
        "dropconnect", "stateful", "masked_output",
    )  # fmt: skip
    return {
        **{key: getattr(model, key) for key in as_they_are},
        **config.cell.arguments(),
        "recurrence": config.recurrence.name,
        "heads": config.recurrence.heads,
        "backend": config.backend,
        "input_init": model.init.input,
        "recurrent_init": model.init.recurrent,
        "last_recurrent_init": model.init.last_recurrent,
        "bias_init": model.init.bias,
        "gate_bias": model.init.gate_bias,
        "recurrent_constraint": model.constraint,
    }
