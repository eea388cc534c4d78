"""The tables of a study of speed that stand our layers beside other packages: by shape, a column for each cell."""

from collections.abc import Sequence

from recurlab.backends import BACKENDS
from recurlab.bench.settings import BenchSettings, shape_name
from recurlab.studies.markdown import markdown_table
from recurlab.studies.table import Row

# The columns of a row: the ratio of a pass to the best peer, and who that is.
PASSES = {"forward": "forward", "forward_backward": "forward and backward", "step": "one step"}


def beside_tables(settings: BenchSettings, rows: Sequence[Row], machine: str) -> list[str]:
    """Return the parts of a page about one machine; none where no row of it stands beside a peer.

    Args:
        settings: of the bench, whose cells and shapes are shown.
        rows: of the machine.
        machine: its name and threads.
    """
    shapes = [str(shape) for shape in settings.shapes]
    ours: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row["shape"], row["cell"]
        usual = row["backend"] in BACKENDS and row["status"] == "ok"
        if usual and any(row.get(f"{name}_best_peer") for name in PASSES):
            time = float(row["forward_backward_ms"])
            if key not in ours or time < float(ours[key]["forward_backward_ms"]):
                ours[key] = row
    parts = []
    for name, title in PASSES.items():
        found = {key: _beside(row, name) for key, row in ours.items()}
        lines = [[shape_name(s), *(found.get((s, cell), "") for cell in settings.cells)] for s in shapes]
        lines = [line for line in lines if any(line[1:])]
        if lines:
            head = ["T x B x H x I", *settings.cells]
            title = f"**{title}, our time as a multiple of the fastest peer's**, {machine}{_versions(rows, name)}:"
            parts += [title, markdown_table(head, lines, texts=1)]
    return parts


def _beside(row: Row, name: str) -> str:
    peer = row.get(f"{name}_best_peer")
    return f"{float(row[f'{name}_to_best_peer']):.2f} {peer}" if peer else ""


def _versions(rows: Sequence[Row], name: str) -> str:
    """Return who was measured in a pass, with versions."""
    column = {"forward": "forward_ms", "forward_backward": "forward_backward_ms", "step": "step_us"}[name]
    peers = {
        r["backend"]: r["version"] for r in rows if r.get("version") and r[column] and r["backend"] not in BACKENDS
    }
    listed = ", ".join(f"{peer} {version}" for peer, version in sorted(peers.items()))
    return f"; peers: {listed}" if listed else ""
