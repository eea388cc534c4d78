"""Numbers in strings: between blanks, between commas, or with decimal commas, where these can be told apart."""

import re
from collections.abc import Sequence

LIST, DECIMAL = "list", "decimal"  # what the commas of a string mean: separators, or decimal commas
LONE, EITHER = "lone", "either"  # undecided, in a string without blanks or with them

SEPARATOR = re.compile(r"\s*,\s*|\s+", re.ASCII)  # blanks that do not break a line may stand between thousands
BESIDE_BLANK = re.compile(r"\s*,\s+|\s+,\s*", re.ASCII)
WITH_COMMA = re.compile(r"[+-]?[0-9]*,?[0-9]+(?:[eE][+-]?[0-9]+)?")
GROUPED = re.compile(
    r"[+-]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+(?:\.[0-9]+)?|(?:\.[0-9]{3})+,[0-9]+)"
)  # 1,234.5 or 1.234,5


def commas(text: str) -> str | None:
    """Return what the commas in a string of numbers mean, as far as it tells; None for a string without any."""
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
    """Return what the commas in a column mean (LIST, DECIMAL, None without any), and the first row that disagrees.

    Args:
        texts: of consecutive rows.
        known: what earlier rows have settled, or None.
        several: whether one number alone in each row would make no sense.
    """
    found = {row: meaning for row, text in enumerate(texts) if (meaning := commas(text))}
    sure = [meaning for meaning in found.values() if meaning in (LIST, DECIMAL)]
    taken = known or (sure[0] if sure else None)
    if taken is None and several and EITHER not in found.values() and found:
        taken = LIST
    wrong = (row for row, each in found.items() if taken is None or (each in (LIST, DECIMAL) and each != taken))
    return taken, next(wrong, None)


def numbers_in(text: str, commas: str | None) -> list[str]:
    """Return the numbers in a string, whose commas are what `commas` says: LIST, DECIMAL or None."""
    inner = text.strip("[]() \t\r\n")
    if commas == DECIMAL:
        return inner.replace(",", ".").split()
    if "," not in inner and inner.isascii():  # several times as fast
        return inner.split()
    return SEPARATOR.split(inner) if inner else []
