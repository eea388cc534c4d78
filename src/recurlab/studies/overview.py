"""All studies of the current folder: the table of README.md and the list of the command line."""

from pathlib import Path

from recurlab.studies.definition import Study
from recurlab.studies.folder import existing_study_names, load_study, study_names
from recurlab.studies.groups import cost_text
from recurlab.studies.markdown import markdown_table
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.speed import SpeedStudy
from recurlab.studies.table import FINISHED, Results, Row
from recurlab.studies.verdict import entries_of, summary_sentence

FOUND = "## What was found"


def overview_table() -> str:
    """Return the table of the project's README.md: what each study asks, what was found and the cost."""
    lines = []
    for name in study_names():
        study = load_study(name)
        took = "; ".join(f"{scale}: {words}" for scale, words in _costs(study).items())
        page = study.folder / "README.md"
        found = summary_sentence(entries_of(study)) if isinstance(study, Reproduction) else finding(page)
        lines.append([f"[{name}]({study.folder.as_posix()})", study.question, found, took])
    return markdown_table(["study", "question", "what was found", "cost"], lines, texts=4) if lines else ""


def study_lines() -> list[str]:
    """Return a line for each study: its question, and how many of its runs are finished at each scale."""
    lines = []
    for name in existing_study_names():
        study = load_study(name)
        there = ""
        if isinstance(study, Study):
            rows = _rows(study)
            counts = {scale: (_finished(rows, scale), len(list(study.runs(scale)))) for scale in study.scales}
            there = "".join(f"; {scale} {done} of {of}" for scale, (done, of) in counts.items())
        lines.append(f"{name}: {study.question}{there}")
    return lines


def finding(path: Path) -> str:
    """Return the first paragraph under "What was found" of a README.md, "" where there is none."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    paragraphs = content.partition(f"\n{FOUND}\n")[2].strip().split("\n\n")
    return "" if paragraphs[0].startswith(("#", "<!--")) else " ".join(paragraphs[0].split())


def _costs(study: Study | SpeedStudy) -> dict[str, str]:
    if isinstance(study, SpeedStudy):
        return {}
    rows = _rows(study)
    found = {scale: cost_text([row for row in rows if row["scale"] == scale]) for scale in study.scales}
    return {scale: words for scale, words in found.items() if words}


def _rows(study: Study) -> list[Row]:
    return list(Results(study).rows().values())


def _finished(rows: list[Row], scale: str) -> int:
    return sum(row["scale"] == scale and row["state"] == FINISHED for row in rows)
