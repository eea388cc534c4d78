"""The data sets: one file each, a dataclass of its options that gives arrays; `module` batches them for Lightning."""

from recurlab.table import Table

DATA = Table(
    "data",
    {
        "adding": "recurlab.data.adding:Adding",
        "copy_memory": "recurlab.data.copy_memory:CopyMemory",
        "dataset": "recurlab.data.dataset:Dataset",
        "fsdd": "recurlab.data.fsdd:FSDD",
        "japanese_vowels": "recurlab.data.japanese_vowels:JapaneseVowels",
        "listops": "recurlab.data.listops:ListOps",
        "mnist": "recurlab.data.mnist:MNIST",
        "music": "recurlab.data.music:Music",
        "text": "recurlab.data.text:Text",
    },
    groups=("recurlab.data", "recurlab.benchmarks"),  # the second one is of version 0.1
)
register_data = DATA.register
