"""The rows that a bench has left."""

import csv
from pathlib import Path


def rows_in(folder: Path, name: str = "*.csv") -> list[dict[str, str]]:
    """Return the rows of a folder's one CSV file of such a name."""
    (path,) = folder.glob(name)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
