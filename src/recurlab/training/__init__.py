"""One run of an experiment: what is built from its config, where it is kept, and how it is trained."""

from recurlab.table import Table

LOGGERS = Table(
    "logger",
    {
        "csv": "recurlab.training.loggers:Csv",
        "tensorboard": "recurlab.training.loggers:TensorBoard",
        "wandb": "recurlab.training.loggers:Wandb",
    },
)
