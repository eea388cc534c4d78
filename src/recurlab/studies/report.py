"""Writes the page and the picture of a study from its CSV files, without importing torch."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from recurlab.files import write_bytes, write_text
from recurlab.studies.definition import Study
from recurlab.studies.folder import existing_study_names, load_study, study_names
from recurlab.studies.groups import Group, cost_text, group_rows, mean_text, number_text
from recurlab.studies.headers import write_measured
from recurlab.studies.markdown import markdown_table, put_between_markers
from recurlab.studies.overview import FOUND, overview_table
from recurlab.studies.picture import draw_study
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.reproduction_page import draw_reproduction, reproduction_text
from recurlab.studies.speed import SpeedStudy
from recurlab.studies.speed_page import draw_speeds, speed_tables
from recurlab.studies.table import Results, Row, fits, published_rows

PICTURE = "results.png"
PAGE = """\
# {title}

**Question.** {question}

<!-- results:begin -->
<!-- results:end -->

{found}
"""


def report_studies(chosen: list[str], check: bool = False) -> list[Path]:
    """Write the table and the picture of studies, and the table of all studies in the project's README.md.

    A study without a page gets one.

    Args:
        chosen: studies; all where it is empty.
        check: write nothing.

    Returns:
        The files that were not what the CSV files give.

    Raises:
        RecurlabError: for a study that is not there, a damaged file, or a README.md without the
            markers.
    """
    changed = []
    for name in chosen or study_names():
        study = load_study(name)
        page, shown = study.folder / "README.md", _shown(study)
        if not shown.text:
            changed += put_between_markers(page, "results", "Not run yet.", check, needed=False)
            continue
        if not (page.is_file() or check):
            write_text(page, PAGE.format(title=study.title, question=study.question, found=FOUND))
        changed += put_between_markers(page, "results", shown.text, check) if page.is_file() else [page]
        # The picture holds what it was drawn from, for its bytes differ from machine to machine.
        path, mark = study.folder / PICTURE, hashlib.sha256(shown.drawn.encode()).hexdigest()
        if not path.is_file() or mark.encode() not in path.read_bytes():
            changed.append(path)
            if not check:
                write_bytes(path, shown.draw(mark))
    changed += put_between_markers(Path("README.md"), "studies", overview_table(), check, needed=False)
    changed += write_measured(check)
    if not (chosen or changed):
        existing_study_names()  # raises if there was none to report
    return changed


class _Shown(NamedTuple):
    """A study's page: its text, what the picture is drawn from, and the function that draws it."""

    text: str
    drawn: str
    draw: Callable[[str], bytes]


def _shown(study: Study | SpeedStudy) -> _Shown:
    picture = f"![{study.title}]({PICTURE})"
    if isinstance(study, Reproduction):
        text = reproduction_text(study, picture)
        return _Shown(text, text, partial(draw_reproduction, study))
    options: object
    draw: Callable[[str], bytes]
    if isinstance(study, SpeedStudy):
        text, options, draw = speed_tables(study), study.bench, partial(draw_speeds, study)
    else:
        text, options, draw = study_tables(study), study.figure, partial(draw_study, study)
    return _Shown(f"{text}\n\n{picture}" if text else "", text + repr((study.title, options)), draw)


def study_tables(study: Study) -> str:
    """Return the tables of a study, one for each scale with rows; "" where there is none."""
    rows, known = list(Results(study).rows().values()), published_rows(study)
    used: list[Row] = []
    parts = []
    for scale in study.scales:
        if found := group_rows(study, rows, scale):
            total = len(study.combinations(scale)) * len(study.scales[scale].seeds)
            parts.append(_scale(study, scale, found, known, used))
            parts += _failures(found)
            own = [row for group in found for row in group.rows]
            missing = total - len(own)
            parts.append(
                f"Cost: {cost_text(own) or 'no run finished'}{f'; {missing} of {total} missing' if missing else ''}."
            )
    if not parts:
        return ""
    return "\n\n".join([*parts, *_notes(study, known, used)])


def _scale(study: Study, scale: str, found: list[Group], known: list[Row], used: list[Row]) -> str:
    """Return the table of a scale; the published rows that it shows are added to `used`."""
    direction = "lower" if study.better == "min" else "higher"
    head = [*study.factors, f"{study.metric} ({direction} is better)", *study.measures, "parameters", "seconds"]
    lines = []
    for group in found:
        values = group.values(study.metric)
        finished = f" ({len(values)})" if values else ""
        failed = f"{len(group.failed)} failed" if group.failed else ""
        said = mean_text(values) + finished if values else ""
        line = [*group.levels.values(), ", ".join(filter(None, (said, failed)))]
        line += [_measure(study, group, name) for name in study.measures]
        line += [" to ".join(f"{size:,.0f}" for size in sorted({*group.values("parameters")})), _mean(group, "seconds")]
        beside = [row for row in known if row["metric"] in (study.metric, *study.measures) and fits(row, group.levels)]
        used += beside
        lines.append([*line, _mean(group, "chance"), "; ".join(_published(study, row) for row in beside)])
    name = {"cpu": "CPU", "gpu": "GPU", "paper": "Paper"}[scale]
    seeds = f"**{name} scale**: mean ± sample standard deviation (runs); a measure is the median."
    return f"{seeds}\n\n{markdown_table([*head, 'chance', 'published'], lines, texts=len(study.factors))}"


def _measure(study: Study, group: Group, name: str) -> str:
    """Return the median of a measure, with the number of runs that reached it where some may not."""
    values, of = group.values(name), len(group.rows)
    if not of:
        return ""
    said = number_text(group.middle(name, measure=True) or 0.0) if values else "never"
    return said if len(values) == of and study.measures[name].first_step is None else f"{said} ({len(values)} of {of})"


def _mean(group: Group, column: str) -> str:
    value = group.middle(column, measure=False)
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _published(study: Study, row: Row) -> str:
    what = "" if row["metric"] == study.metric else f"{row['metric']} "
    return f"{what}{row['value']} ({row['source']})"


def _failures(found: list[Group]) -> list[str]:
    """Return a line for each reason why runs failed."""
    reasons: dict[str, list[str]] = {}
    for group in found:
        for row in group.failed:
            reasons.setdefault(row["reason"], []).append(" ".join([*group.levels.values(), f"seed {row['seed']}"]))
    return [f"Failed: {', '.join(runs)}: {reason}" for reason, runs in reasons.items()]


def _notes(study: Study, known: list[Row], used: list[Row]) -> list[str]:
    """Return the published numbers that no table shows, and the notes of those that one does."""
    lines = []
    for row in known:
        note = f": {row['note']}" if row.get("note") else ""
        where = ", ".join(f"{name} {row[name]}" for name in study.factors if row.get(name))
        if row not in used:
            lines.append(f"- {where or 'all'}: {row['metric']} {row['value']}, {row['source']}{note}")
        elif note:
            lines.append(f"- {row['source']}{note}")
    return ["Published:\n\n" + "\n".join(dict.fromkeys(lines))] if lines else []
