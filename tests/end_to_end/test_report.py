"""A run on one page, from its directory alone."""

import base64
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recurlab.results.report import write_report
from recurlab.training.run_dir import FORMAT

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page's text and pictures; anything that reaches out of it, runs code or is left open is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.pictures: list[bytes] = []
        self.feed(path.read_text("utf-8"))
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "object", "base", "form", "a")
        assert not [name for name, _ in attributes if name.startswith("on") or name in ("href", "srcset", "style")]
        if tag == "img":
            start, _, content = dict(attributes)["src"].partition(",")
            assert start == "data:image/png;base64"
            self.pictures.append(base64.b64decode(content))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["style"]:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.words.append(data)
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        (found,) = (row[1:] for row in self.rows if row[0] == name)
        return found


@pytest.fixture
def trained(recurlab, quick, tmp_path):
    """Return a function that trains and returns the run directory."""

    def train(*overrides: str) -> Path:
        assert recurlab("train", *quick[-3:], *overrides)[0] == 0
        return max(tmp_path.rglob("status.json")).parent

    return train


@pytest.fixture
def left(tmp_path):
    """Return a function that leaves a run directory in some state."""

    def leave(state: str, reason: str = "", experiment: str = "own/gru", **files: str) -> Path:
        run = tmp_path / "left"
        run.mkdir()
        (run / "status.json").write_text(json.dumps({"format": FORMAT, "state": state, "reason": reason}))
        (run / "config.yaml").write_text(f"experiment: {json.dumps(experiment)}\n")
        for name, text in files.items():
            (run / name.replace("_", ".")).write_text(text)
        return run

    return leave


@pytest.mark.usefixtures("pictures")
def test_the_page_of_a_finished_run(recurlab, quick, tmp_path):
    assert recurlab("train", "experiment=adding/lstm", "seed=7", *quick)[0] == 0
    run = next(tmp_path.rglob("status.json")).parent
    code, out, err = recurlab("report", str(run))
    assert (code, out, err) == (0, f"{run / 'report.html'}\n", "")
    page = Page(run / "report.html")
    result = json.loads((run / "result.json").read_text())
    test, chance, best, last, _ = page.row("mse")
    assert (test, chance) == (f"{result['metrics']['test/mse']:.6g}", f"{result['chance']['mse']:.6g}")
    assert float(best) == pytest.approx(result["metrics"]["valid/mse"], rel=1e-5)
    assert float(last) >= float(best)
    assert page.pictures == [(run / "curves.png").read_bytes()]
    assert page.row("steps") == ["10"]
    assert page.row("parameters") == [f"{result['parameters']:,}"]
    provenance = json.loads((run / "provenance.json").read_text())
    assert f"torch {provenance['packages']['torch']}" in page.row("versions")[0]
    assert all(commit in page.row("commit")[0] for commit in provenance["git"].values())
    assert provenance["device"]["name"] in page.row("device")[0]
    assert "hidden_size: 6" in page.text
    assert "seed: 7" in page.text
    assert "This run" not in page.text


@pytest.mark.usefixtures("pictures")
def test_a_classifier_s_page_shows_what_was_taken_for_what(trained, tiny_mnist, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(tiny_mnist, folder)
    data = ["data=mnist", f"data.dir={folder}", "data.verify=false", "data.valid_size=20"]
    run = trained(*data, "model.hidden_size=5", "trainer.max_epochs=1")
    shutil.rmtree(folder)
    page = Page(write_report(run))
    assert page.pictures == [(run / "curves.png").read_bytes(), (run / "confusion.png").read_bytes()]
    assert page.row("accuracy")[1] == "0.1"


def test_a_language_model_s_page_has_samples_though_the_text_is_gone(trained, tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("so & so <b>1</b>\n" * 60)
    run = trained("data=text", "data.dir=.", "data.train=book.txt", "data.bptt=9", "model.hidden_size=4")
    text.unlink()
    page = Page(write_report(run))
    assert [part for part in ("0.5", "0.8", "1.0") if f"temperature {part}" in page.text] == ["0.5", "0.8", "1.0"]
    notes = json.loads((run / "provenance.json").read_text())["data"]
    assert len(notes) == 3
    assert all(note in page.text for note in notes)
    again = Page(write_report(run))
    assert again.words == page.words
    best = run / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:1000])
    assert f"No sample: {best}: not a checkpoint of this model" in Page(write_report(run)).text


def test_nothing_of_a_run_is_taken_for_html(left):
    evil = "<script>alert('1')</script> & \"x\" \x07\ud800"
    provenance = json.dumps({"command": [evil], "git": {evil: evil}, "data": [evil], "packages": {evil: evil}})
    run = left("failed", evil, "<img src=x onerror=y>", provenance_json=provenance)
    page = Page(write_report(run))
    assert page.pictures == []
    assert page.text.count("<script>alert('1')</script> & \"x\"") == 7
    assert "<img src=x onerror=y>" in page.text
    assert "\x07" not in page.text


def test_a_run_that_failed_before_anything_was_logged(left):
    page = Page(write_report(left("failed", "loss=nan: not finite at step 0")))
    assert "This run failed: loss=nan: not finite at step 0. It logged nothing." in page.text
    assert "The run kept no provenance.json." in page.text


@pytest.mark.parametrize(
    ("state", "said"), [("interrupted", "interrupted"), ("running", "is still running, or was killed")]
)
def test_a_run_without_an_end_shows_how_far_it_came(left, state, said):
    metrics = "step,valid/accuracy,valid/loss\n3,0.5,1.0\n7,0.25,2.0\n"
    run = left(state, metrics_csv=metrics + "9,0.7" * (state == "running"))
    page = Page(write_report(run))
    assert f"This run {said}. What follows is what it left, up to step 7." in page.text
    assert page.row("accuracy") == ["", "", "0.5", "0.25", ""]
    assert page.row("loss") == ["", "", "1", "2", ""]
    assert page.row("steps") == ["at least 7"]
    assert len(page.pictures) == 1


@pytest.mark.parametrize(
    "damage",
    [{"metrics_csv": "step,train/loss\n1,x\n"}, {"result_json": "{"}, {"result_json": "{}"}, {"provenance_json": "[]"},
     {"provenance_json": '{"git": "abc"}'}, {"provenance_json": '{"data": "abc"}'}, {"confusion_csv": "a,b\n1,2\n"},
     {"data_json": "0"}, {"config_yaml": "a: ["}],
)  # fmt: skip
def test_a_damaged_file_is_one_line_that_names_it(left, recurlab, damage):
    run = left("finished", **damage)
    code, out, err = recurlab("report", str(run))
    assert (code, out, err.count("\n")) == (2, "", 1)
    (name,) = damage
    assert err.startswith(f"recurlab: {run / name.replace('_', '.')}: ")


def test_no_run_and_several_runs(left, recurlab, tmp_path):
    assert recurlab("report", "nowhere")[2].startswith("recurlab: run='nowhere': not a run directory")
    first = left("interrupted")
    second = shutil.copytree(first, tmp_path / "second")
    code, out, _ = recurlab("report", str(first), str(second))
    assert (code, out.split()) == (0, [str(first / "report.html"), str(second / "report.html")])


def test_a_place_that_can_t_be_written_to(left, recurlab):
    run = left("interrupted")
    (run / "report.html").mkdir()
    code, _, err = recurlab("report", str(run))
    assert (code, err) == (2, f"recurlab: run='{run}': no report can be written: Is a directory\n")


def test_a_report_needs_no_torch(left):
    run = left("interrupted", metrics_csv="step,valid/loss\n3,1.0\n")
    check = "import sys; from recurlab.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check, "report", str(run)], check=True)
