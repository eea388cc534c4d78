"""Our layer beside everybody else's: a line for each case and shape, and how many are ahead."""

from collections.abc import Iterator
from statistics import median

from recurlab.backends import BACKENDS
from recurlab.bench.report import aligned_columns, case_of
from recurlab.bench.results import BESIDE, Row
from recurlab.bench.settings import shape_name

NAMES = {"forward": "forward", "forward_backward": "forward + backward", "step": "step"}


def beside_peers(rows: list[Row]) -> list[str]:
    """Return lines: our fastest backend beside each peer that has run the same, then a summary of each pass.

    A pair of figures is of the forward pass and of both passes; each is our time as a multiple of
    the peer's, or under "x floor" of the floor. Nothing is returned where there is no peer.
    """
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            cases.setdefault((case_of(row), row["shape"]), []).append(row)
    ours = {key: _fastest([row for row in some if row["backend"] in BACKENDS]) for key, some in cases.items()}
    names = list(dict.fromkeys(r["backend"] for key, some in cases.items() if ours[key] for r in some if _is_peer(r)))
    lines = []
    for key, some in cases.items():
        own, theirs = ours[key], {row["backend"]: row for row in some if _is_peer(row)}
        if own is None or not theirs:
            continue
        pairs = [_pair(own, theirs[name]) if name in theirs else "" for name in names]
        lines.append([key[0], shape_name(own["shape"]), own["backend"], *pairs, _of_floor(own), _step(own)])
    if not lines:
        return []
    head = ["case", "shape", "ours", *(f"to {name}" for name in names), "x floor", "step us, to the best"]
    used = [column for column in zip(head, *lines, strict=True) if any(column[1:])]
    table = aligned_columns(list(zip(*used, strict=True)), texts=3)
    return ["", "ours as a multiple of each peer, forward / forward + backward:", table, *_summary(list(ours.values()))]


def _is_peer(row: Row) -> bool:
    return row["backend"] not in BACKENDS


def _fastest(rows: list[Row]) -> Row | None:
    return min(rows, key=lambda row: float(row["forward_backward_ms"]), default=None)


def _pair(own: Row, other: Row) -> str:
    return " / ".join(
        f"{float(own[column]) / float(other[column]):.2f}" if other[column] else "-"
        for column in ("forward_ms", "forward_backward_ms")
    )


def _of_floor(row: Row) -> str:
    if not row["forward_backward_floor_ms"]:
        return ""
    passes = ("forward", "forward_backward")
    return " / ".join(f"{float(row[f'{name}_ms']) / float(row[f'{name}_floor_ms']):.2f}" for name in passes)


def _step(row: Row) -> str:
    best = f", {row['step_to_best_peer']} of {row['step_best_peer']}" if row["step_best_peer"] else ""
    return f"{float(row['step_us']):.1f}{best}" if row["step_us"] else ""


def _summary(ours: list[Row | None]) -> Iterator[str]:
    for name in BESIDE:
        found = [(float(r[f"{name}_to_best_peer"]), r) for r in ours if r is not None and r[f"{name}_to_best_peer"]]
        if found:
            ratios = [ratio for ratio, _ in found]
            worst, row = max(found, key=lambda each: each[0])
            where = f"{case_of(row)} {shape_name(row['shape'])}, {row[f'{name}_best_peer']}"
            yield (
                f"{NAMES[name]}, beside the best peer: {sum(r <= 1 for r in ratios)} of {len(ratios)} at most 1, "
                f"median {median(ratios):.2f}, largest {worst:.2f} ({where})"
            )
