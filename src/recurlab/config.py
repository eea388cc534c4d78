"""The typed schema of a run: the only meeting point of YAML and Python.

`load` turns a composed config into dataclasses. Each has its ranges checked as it is made, without
importing torch.
"""

import re
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Optional

from omegaconf import DictConfig, OmegaConf

from recurlab.backends import BACKENDS
from recurlab.cells.recurrence import Recurrence
from recurlab.choices import CHOICES, take_cell, typed_choice
from recurlab.errors import (
    SIZE,
    RecurlabError,
    check_choice,
    check_integer,
    check_number,
    check_probability,
    path_of,
    shown,
    unknown,
)
from recurlab.layers import MASKED_OUTPUTS, check_layer_norm
from recurlab.models import ENCODERS, STACKS
from recurlab.plugins import import_plugins
from recurlab.problems.loss import Loss
from recurlab.schema import full_keys, plain
from recurlab.schema import typed as typed

MOST_LAYERS = 10_000  # more would be built for hours
NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*")  # of an experiment; a run never leaves its output_dir


@dataclass
class RecurrenceConfig:
    """The recurrence type, where null is the cell's usual one, and the heads of a block recurrence."""

    name: Optional[str] = None  # noqa: UP045
    heads: int = 1

    def __post_init__(self) -> None:
        Recurrence(self.name or "dense", self.heads)


@dataclass
class InitConfig:
    """Initialisers; null is torch's. `gate_bias` maps a gate of the recurrent layers to its total bias."""

    encoder: Any = None
    input: Any = None
    recurrent: Any = None
    last_recurrent: Any = None
    bias: Any = None
    head: Any = None
    gate_bias: dict[str, float] = field(default_factory=dict)


@dataclass
class WeightsConfig:
    """One choice for each kind of weight of the recurrent layers: input, recurrent and bias; null is none."""

    input: Any = None
    recurrent: Any = None
    bias: Any = None


@dataclass
class ModelConfig:
    """The model around the cell: options of `recurlab.models.sequence_model` and, under their names, of `recurlab.RNN`.

    The encoder "auto" is an embedding for symbols and none for numbers.
    """

    encoder: str = "auto"
    encoder_size: Optional[int] = None  # noqa: UP045
    stack: str = "plain"
    hidden_size: int = 128
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    layer_norm: Any = False
    embedding_dropout: float = 0.0
    input_dropout: float = 0.0
    dropout: float = 0.0
    output_dropout: float = 0.0
    variational: bool = False
    recurrent_dropout: float = 0.0
    zoneout: Any = 0.0
    dropconnect: float = 0.0
    stateful: bool = False
    masked_output: str = "zero"
    tie_weights: bool = False
    init: InitConfig = field(default_factory=InitConfig)
    constraint: WeightsConfig = field(default_factory=WeightsConfig)
    regularizer: WeightsConfig = field(default_factory=WeightsConfig)

    def __post_init__(self) -> None:
        if self.encoder != "auto" and self.encoder not in ENCODERS:
            raise unknown("model.encoder", self.encoder, ["auto", *ENCODERS])
        STACKS.check("model.stack", self.stack)
        check_choice("model.masked_output", self.masked_output, MASKED_OUTPUTS)
        check_layer_norm("model.layer_norm", self.layer_norm)
        check_integer("model.hidden_size", self.hidden_size, high=SIZE)
        check_integer("model.num_layers", self.num_layers, high=MOST_LAYERS)
        if self.encoder_size is not None:
            check_integer("model.encoder_size", self.encoder_size, high=SIZE)
        for each in fields(self):
            if each.type is float:  # all of them are probabilities of a dropout
                check_probability(f"model.{each.name}", getattr(self, each.name))
        for p in self.zoneout if isinstance(self.zoneout, list) else [self.zoneout]:
            check_probability("model.zoneout", p)


@dataclass
class TrainerConfig:
    """How long and how the run trains; the names are those of Lightning's Trainer.

    With several `devices` or `num_nodes`, each device has a process of its own (DDP), which takes
    its share of every batch; `num_workers` further ones make batches ahead. Checkpoints to go on
    from are written after each epoch, and each `checkpoint_every_n_steps` within one. Training ends
    at the first validation whose metric is as good as `stopping_threshold`. Of several processes
    that make no step for `stall_timeout` seconds it is said which ones hang; told to end, they are
    killed.
    """

    max_epochs: int = 10
    max_steps: int = -1
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    num_workers: int = 0
    precision: str = "32-true"
    gradient_clip_val: Optional[float] = None  # noqa: UP045
    gradient_clip_algorithm: str = "norm"
    limit_train_batches: Optional[int] = None  # noqa: UP045
    limit_val_batches: Optional[int] = None  # noqa: UP045
    limit_test_batches: Optional[int] = None  # noqa: UP045
    check_val_every_n_epoch: int = 1
    log_every_n_steps: int = 20
    checkpoint_every_n_steps: Optional[int] = None  # noqa: UP045
    stopping_threshold: Optional[float] = None  # noqa: UP045
    stall_timeout: float = 60.0
    deterministic: bool = False
    enable_progress_bar: bool = True

    def __post_init__(self) -> None:
        check_integer("trainer.max_epochs", self.max_epochs)
        check_integer("trainer.max_steps", self.max_steps, low=-1)
        check_integer("trainer.devices", self.devices)
        check_integer("trainer.num_nodes", self.num_nodes)
        check_integer("trainer.num_workers", self.num_workers, low=0, high=64)
        check_choice("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        check_choice("trainer.precision", self.precision, ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true"))
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise RecurlabError("trainer.precision='16-mixed': needs a GPU; on a CPU there is bf16-mixed")
        check_choice("trainer.gradient_clip_algorithm", self.gradient_clip_algorithm, ("norm", "value"))
        if self.gradient_clip_val is not None:
            check_number("trainer.gradient_clip_val", self.gradient_clip_val, above=0)
        for key in ("check_val_every_n_epoch", "log_every_n_steps"):
            check_integer(f"trainer.{key}", getattr(self, key))
        check_number("trainer.stall_timeout", self.stall_timeout, above=0)
        if self.stopping_threshold is not None:
            check_number("trainer.stopping_threshold", self.stopping_threshold)
        for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "checkpoint_every_n_steps"):
            if getattr(self, key) is not None:
                check_integer(f"trainer.{key}", getattr(self, key))

    @property
    def world(self) -> int:
        """Processes that train."""
        return self.devices * self.num_nodes


@dataclass
class Config:
    """One run, from data to result.

    Attributes:
        experiment: names the folder of the run under `output_dir`.
        seed: of weights, masks and the order of the training data.
        plugins: modules to import first, which register cells or data sets.
        backend: auto or a name of `recurlab.backends.BACKENDS`.
        resume: null begins a new run; auto continues the one of the same config, or leaves it if it
            has finished; a run directory continues that one.
        data, cell, optimizer, scheduler, logger, launcher: an instance of the class that the
            choice's name stands for.
    """

    experiment: str = "unnamed"
    seed: int = 0
    output_dir: str = "runs"
    resume: Optional[str] = None  # noqa: UP045
    plugins: list[str] = field(default_factory=list)
    backend: str = "auto"
    data: Any = None
    cell: Any = None
    recurrence: RecurrenceConfig = field(default_factory=RecurrenceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: Loss = field(default_factory=Loss)
    optimizer: Any = None
    scheduler: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: Any = None
    launcher: Any = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.experiment):
            raise RecurlabError(f"experiment={shown(self.experiment)}: must be a name, as adding/gru")
        path_of("output_dir", self.output_dir)
        if self.resume is not None:
            path_of("resume", self.resume)
        check_integer("seed", self.seed, low=0, high=2**32 - 1)
        check_choice("backend", self.backend, ("auto", *BACKENDS))
        for key in ("data", "optimizer", "scheduler", "logger", "launcher"):
            if getattr(self, key) is None:
                raise RecurlabError(f"{key}=None: must be one of {', '.join(CHOICES[key])}")
        Recurrence(self.recurrence.name or "dense", self.recurrence.heads).weight_shape(1, self.model.hidden_size)


def load(composed: DictConfig) -> Config:
    """Return the typed config for one that Hydra composed or that a run directory holds.

    Raises:
        RecurlabError: for an unknown key or name, a wrong type or a value out of range.
    """
    config = plain(composed)
    if config.get("plugins") is not None:
        import_plugins(config.plugins)
    for key in CHOICES:
        if key != "cell" and OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, typed_choice(config, key, keys())[1], merge=False)
    cell = take_cell(config, keys())
    made = OmegaConf.to_object(typed("", Config, config))
    assert isinstance(made, Config)
    made.cell = cell
    return made


@cache
def keys() -> tuple[str, ...]:
    """Return the full names of all keys of a run but those of choices, whose options differ."""
    values: Any = OmegaConf.to_container(OmegaConf.structured(Config))
    return tuple(full_keys(values))
