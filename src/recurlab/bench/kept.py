"""What scripts/gpu_verify leaves beside results: a summary and an archive of its logs."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from recurlab.files import write_bytes, write_text

SUMMARY, ARCHIVE = "summary.txt", "logs.tgz"


class Kept:
    """The summary and the logs, both written after each stage, whatever ends the run.

    Args:
        output: the folder.
        logs: that of the stages' logs; those of stages that are not run now are kept too, and
            earlier summaries.
        since: when the run began, as 2026-01-01T00:00:00+00:00.
    """

    def __init__(self, output: Path, logs: Path, since: str) -> None:
        self.output, self.logs = output, logs
        self.log = f"summary-{since.partition('+')[0].replace(':', '-')}.log"
        self.lines: list[str] = []
        for folder in (output, logs):
            folder.mkdir(parents=True, exist_ok=True)

    def say(self, line: str) -> None:
        """Show a line, and keep it."""
        print(line, flush=True)
        self.lines.append(line)

    def refresh(self, ends: Iterable[str] = ()) -> None:
        """Write what was said so far, with the summary's lines behind it, and all logs."""
        text = "\n".join([*self.lines, *ends, ""])
        write_text(self.output / SUMMARY, text)
        write_text(self.logs / self.log, text)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for log in sorted(self.logs.glob("*.log")):
                archive.add(log, f"logs/{log.name}")
        write_bytes(self.output / ARCHIVE, packed.getvalue())
