"""Studies: a folder ``experiments/<study>/`` without code has a question, its runs, and what they found."""

SCALES = {"cpu": "cpu", "gpu": "gpu", "paper": "cpu"}  # the sizes of a study, and the accelerator of their runs
