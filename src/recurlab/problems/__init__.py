"""Loss, metrics and optimisation per problem type, as LightningModules."""

from recurlab.table import Table

PROBLEMS = Table(
    "problem",
    {
        "regression": "recurlab.problems.regression:Regression",
        "classification": "recurlab.problems.classification:Classification",
        "labelling": "recurlab.problems.labelling:Labelling",
        "multilabel": "recurlab.problems.multilabel:Multilabel",
        "language": "recurlab.problems.language:Language",
    },
)

OPTIMIZERS = Table(
    "optimizer",
    {
        "adam": "recurlab.problems.optimizers:Adam",
        "adamw": "recurlab.problems.optimizers:AdamW",
        "rmsprop": "recurlab.problems.optimizers:RMSprop",
        "sgd": "recurlab.problems.optimizers:SGD",
    },
)

SCHEDULERS = Table(
    "scheduler",
    {
        "constant": "recurlab.problems.schedulers:Constant",
        "step": "recurlab.problems.schedulers:Step",
        "cosine": "recurlab.problems.schedulers:Cosine",
        "plateau": "recurlab.problems.schedulers:Plateau",
    },
)
