"""Tables in Markdown, and putting them into a file between markers."""

import re
from collections.abc import Sequence
from pathlib import Path

from recurlab.errors import RecurlabError
from recurlab.files import write_text


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]], texts: int) -> str:
    """Return a table without its empty columns; after the first `texts` columns all are aligned to the right."""
    kept = [column for column in range(len(head)) if any(line[column] for line in lines)]
    marks = ["---" if column < texts else "---:" for column in range(len(head))]
    made = [" | ".join(_plain(line[column]) for column in kept) for line in (head, marks, *lines)]
    return "\n".join(f"| {line} |" for line in made)


def put_between_markers(path: Path, name: str, text: str, check: bool = False, needed: bool = True) -> list[Path]:
    """Put a text between ``<!-- <name>:begin -->`` and ``<!-- <name>:end -->`` in a file.

    Args:
        path: of the file.
        name: of the markers.
        text: what is to be between them.
        check: write nothing.
        needed: whether a file without the markers is an error, or left alone.

    Returns:
        The file, if it was another one.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if not needed:
            return []
        raise RecurlabError(f"{path}: can't be read: {getattr(error, 'strerror', error)}") from error
    parts = re.split(f"({re.escape(begin)}|{re.escape(end)})", old)
    if parts[1::2] != [begin, end]:
        if not needed and len(parts) == 1:
            return []
        raise RecurlabError(f"{path}: must have {begin} and {end}, once each")
    new = "".join([parts[0], begin, f"\n{text}\n", end, parts[4]])
    if new == old:
        return []
    if not check:
        write_text(path, new)
    return [path]


def _plain(text: str) -> str:
    """Return a text in one line, with the mark of a column's end escaped."""
    return " ".join(text.split()).replace("|", "\\|")
