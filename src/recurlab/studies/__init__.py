"""Studies: what is asked, run and found is kept in a folder ``experiments/<study>/`` without code."""

SCALES = {"cpu": "cpu", "gpu": "gpu", "paper": "cpu"}  # how large a study is run, and the accelerator of its runs
