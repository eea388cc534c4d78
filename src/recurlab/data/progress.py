"""A progress bar for what takes longer than two seconds."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 2.0  # seconds without a bar
PERIOD = 0.1  # seconds between two updates


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """Iterate over `items`; once that has taken two seconds, show a bar named `what` on a terminal's standard error."""
    total = len(items) if isinstance(items, Sized) else None
    due, bar = time.monotonic() + PATIENCE, None
    try:
        for count, item in enumerate(items):
            if (now := time.monotonic()) >= due:
                due = now + PERIOD
                if bar is None:
                    from rich.console import Console
                    from rich.progress import Progress

                    console = Console(file=sys.stderr)
                    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
                    bar.start()
                    task = bar.add_task(what, total=total)
                bar.update(task, completed=count)
            yield item
    finally:
        if bar is not None:
            bar.stop()
