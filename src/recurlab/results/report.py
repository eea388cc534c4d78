"""A run on one page: report.html, from nothing but the run directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recurlab.errors import RecurlabError
from recurlab.files import write_text
from recurlab.foreign import content_of
from recurlab.problems.metrics import best_of, mode_of
from recurlab.results import page
from recurlab.results.figures import draw_confusion, draw_curves
from recurlab.results.generate import TextModel
from recurlab.results.records import Curves, Points, Result
from recurlab.results.sampling import Sampling
from recurlab.training.run_dir import MOST, RunDir, read_json

VERSIONS = ("recurlab", "torch", "pytorch-lightning", "hydra-core", "numpy")  # that matter most
TEMPERATURES = (0.5, 0.8, 1.0)
SAMPLE = {"char": (500, "characters"), "word": (100, "words")}  # how much is shown at each level


def write_report(path: str | Path) -> Path:
    """Draw the pictures of a run, and write them and all that is known of it into report.html; return its path.

    The run may have failed or be unfinished: then the page says so, and shows what there is.

    Raises:
        RecurlabError: for a directory that is no run or can't be written to, or a damaged file in
            it.
    """
    run = RunDir.open(path)
    config = run.load_config()
    status = read_json(run.status)
    result = Result.read(run) if run.result.is_file() else None
    provenance = read_json(run.provenance) if run.provenance.is_file() else {}
    curves = Curves(run)
    try:
        pictures = [
            page.section(title, page.picture(drawn, title))
            for title, drawn in (("Curves", draw_curves(path)), ("Confusion", draw_confusion(path)))
            if drawn is not None
        ]
        parts = [
            _standing(status, curves),
            page.section("Metrics", _metrics(curves, result)),
            *pictures,
            page.section("Samples", *_samples(run, curves)),
            page.section("Cost", page.pairs(_cost(curves, result))),
            page.section("Data", _data(run, provenance)),
            page.section("Provenance", *_provenance(run, provenance)),
            page.section("Config", page.pre(content_of(run.config, MOST).decode())),
        ]
        write_text(run.report, page.page(f"{config.get('experiment')} · {run.path.resolve().name}", parts))
    except OSError as error:
        raise RecurlabError(f"run={str(path)!r}: no report can be written: {error.strerror or error}") from error
    return run.report


def _standing(status: dict[str, Any], curves: Curves) -> str:
    """Return how the run ended, if it did."""
    state, reason = status.get("state"), status.get("reason")
    if state == "finished":
        return ""
    said = "is still running, or was killed" if state == "running" else str(state)
    because = f": {reason}" if reason else ""
    left = f"What follows is what it left, up to step {curves.steps}." if curves.columns else "It logged nothing."
    return page.note(f"This run {said}{because}. {left}")


def _metrics(curves: Curves, result: Result | None) -> str:
    """Return the table of metrics, test and chance side by side."""
    found = result.metrics if result else {}
    tested = {name.removeprefix("test/"): value for name, value in found.items() if name.startswith("test/")}
    names = list(dict.fromkeys([*tested, *curves.metrics]))
    if not names:
        return ""
    header = ["", "test", "chance", "best validation", "last validation", "last training"]
    rows = []
    for name in names:
        valid = curves.of("valid", name)
        chance = result.chance.get(name) if result else None
        test = tested.get(name, _last(curves.of("test", name)))
        rows.append((name, [test, chance, _best(name, valid), _last(valid), _last(curves.of("train", name))]))
    return page.numbers(header, rows)


def _last(points: Points) -> float | None:
    return points[-1][1] if points else None


def _best(name: str, points: Points) -> float | None:
    return best_of((value for _, value in points), mode_of(name))


def _samples(run: RunDir, curves: Curves) -> Iterator[str]:
    """Yield what the best checkpoint of a language model writes, or why it can't."""
    if "perplexity" not in curves.metrics or not run.best.is_file():
        return
    try:
        model = TextModel(run.path)
        length, unit = SAMPLE[model.vocabulary.level]
        yield f"<p>{length} {unit} from the best checkpoint, without a prompt; seed 0.</p>"
        for temperature in TEMPERATURES:
            written = "".join(model.write(sampling=Sampling(length, temperature)))
            yield f"<p>temperature {temperature}</p>\n{page.pre(written)}"
    except RecurlabError as error:  # a user's code that is not imported, or a checkpoint that is being written
        yield page.note(f"No sample: {error}")


def _cost(curves: Curves, result: Result | None) -> Iterator[tuple[str, object]]:
    if result is None:
        yield "steps", f"at least {curves.steps:,}"
        return
    yield "parameters", f"{result.parameters:,}"
    yield "epochs", f"{result.epochs:,}"
    yield "steps", f"{result.steps:,}"
    yield "training", f"{result.seconds:,.1f} s, validation included"
    yield "speed", f"{result.sequences_per_second:,.0f} sequences/s, {result.steps_per_second:,.0f} time steps/s"
    yield "backend", ", ".join(sorted(set(result.backends)))


def _data(run: RunDir, provenance: dict[str, Any]) -> str:
    """Return what the run noted of its data, and what the model knows of them."""
    notes = provenance.get("data") or []
    if not isinstance(notes, list):
        raise RecurlabError(f"{run.provenance}: data={notes!r}: must be a list of notes")
    facts = read_json(run.facts) if run.facts.is_file() else {}
    kind = "symbols" if facts.get("symbols") else "features of a step"
    known = [f"input: {facts.get('input_size')} {kind}; output: {facts.get('output_size')} numbers"] if facts else []
    said = page.lines([str(note) for note in notes] + known)
    return f"<p>{said}</p>" if said else ""


def _provenance(run: RunDir, provenance: dict[str, Any]) -> Iterator[str]:
    """Yield what the run came from."""
    if not provenance:
        yield page.note("The run kept no provenance.json.")
        return
    git, device, packages = (_mapping(run, provenance, key) for key in ("git", "device", "packages"))
    dirty = ", and changes that are in diff.patch" if provenance.get("dirty") else ""
    command = provenance.get("command")
    versions = {**packages, "recurlab": provenance.get("recurlab")}
    rows = [
        ("time", provenance.get("time")),
        ("command", " ".join(map(str, command)) if isinstance(command, list) else command),
        ("commit", "\n".join(f"{commit} ({folder}){dirty}" for folder, commit in git.items()) or "none known"),
        (
            "device",
            ", ".join(f"{name} {value}" for name, value in device.items() if value is not None).removeprefix("name "),
        ),
        ("threads", provenance.get("threads")),
        ("system", f"{provenance.get('platform')}, Python {provenance.get('python')}"),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in VERSIONS if versions.get(name))),
    ]
    yield page.pairs(rows)
    others = (f"{name} {version}" for name, version in sorted(packages.items(), key=lambda item: item[0].lower()))
    yield page.folded("all packages", f"<p>{page.text(', '.join(others))}</p>")


def _mapping(run: RunDir, provenance: dict[str, Any], key: str) -> dict[str, Any]:
    found = provenance.get(key) or {}
    if not isinstance(found, dict):
        raise RecurlabError(f"{run.provenance}: {key}={found!r}: must be a mapping")
    return found
