"""The benchmarks: one file each, a dataclass of its options that gives arrays; `module` batches them for Lightning."""

from recurlab.table import Table

BENCHMARKS = Table(
    "benchmark",
    {
        "adding": "recurlab.data.adding:Adding",
        "mnist": "recurlab.data.mnist:MNIST",
    },
)
register_benchmark = BENCHMARKS.register
