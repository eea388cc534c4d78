"""Numbers in strings: between blanks, between commas, or with decimal commas, where these can be told apart."""

import re
from collections.abc import Sequence

LIST, DECIMAL = "list", "decimal"  # what the commas of a string are
LONE, EITHER = "lone", "either"  # the one or the other: in a string without blanks, or with them

SEPARATOR = re.compile(r"\s*,\s*|\s+", re.ASCII)  # blanks that do not break a line may stand between thousands
BESIDE_BLANK = re.compile(r"\s*,\s+|\s+,\s*", re.ASCII)
WITH_COMMA = re.compile(r"[+-]?[0-9]*,?[0-9]+(?:[eE][+-]?[0-9]+)?")
GROUPED = re.compile(
    r"[+-]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+(?:\.[0-9]+)?|(?:\.[0-9]{3})+,[0-9]+)"
)  # 1,234.5 or 1.234,5


def commas(text: str) -> str | None:
    """Return what the commas of a string of numbers are, as far as it tells; None without any."""
    if "," not in text:
        return None
    if text.lstrip()[:1] in "[(" or text.count(",") == text.count(", "):
        return LIST
    parts = BESIDE_BLANK.split(text.strip())
    words = [word for part in parts for word in part.split()]
    joined = [word for word in words if "," in word]
    if not joined or not all(WITH_COMMA.fullmatch(word) or GROUPED.fullmatch(word) for word in joined):
        return LIST
    if len(words) == 1:
        return LONE
    if len(parts) > 1 or not all(map(WITH_COMMA.fullmatch, words)) or all(map(GROUPED.fullmatch, joined)):
        return EITHER
    return DECIMAL


def column_commas(texts: Sequence[str], known: str | None, several: bool) -> tuple[str | None, int | None]:
    """Return what the commas in a column are, LIST, DECIMAL or None without any, and the first row that does not agree.

    Args:
        texts: of consecutive rows.
        known: of the rows before.
        several: whether one number alone in each row would make no sense.
    """
    found = {row: kind for row, text in enumerate(texts) if (kind := commas(text))}
    sure = [kind for kind in found.values() if kind in (LIST, DECIMAL)]
    taken = known or (sure[0] if sure else None)
    if taken is None and several and EITHER not in found.values() and found:
        taken = LIST
    wrong = (row for row, kind in found.items() if taken is None or (kind in (LIST, DECIMAL) and kind != taken))
    return taken, next(wrong, None)


def numbers_in(text: str, kind: str | None) -> list[str]:
    """Return the numbers in a string; `kind` says what its commas are."""
    inner = text.strip("[]() \t\r\n")
    if kind == DECIMAL:
        return inner.replace(",", ".").split()
    if "," not in inner and inner.isascii():  # several times as fast
        return inner.split()
    return SEPARATOR.split(inner) if inner else []
