import json
from pathlib import Path

import pytest

from recurlab.errors import RecurlabError
from recurlab.results.figures import draw_confusion, draw_curves
from recurlab.results.records import Curves, Result, read_confusion
from recurlab.training.run_dir import FORMAT, RunDir

pytestmark = pytest.mark.usefixtures("pictures")
# As Lightning's logger and its LearningRateMonitor write it: a row for each, and a rate for each group of parameters.
METRICS = """epoch,lr-Adam/pg1,lr-Adam/pg2,step,test/mse,train/loss,train/mse,valid/loss,valid/mse
,0.5,0.5,4,,,,,
0,,,4,,9.0,9.0,,
0,,,5,,,,7.5,7.5
,0.25,0.25,9,,,,,
1,,,9,,1.5,1.5,,
1,,,10,0.75,,,,
"""
RESULT = {
    "metrics": {"test/mse": 0.75}, "chance": {"mse": 2}, "parameters": 12, "epochs": 2, "steps": 10, "seconds": 1.5,
    "sequences_per_second": 20.0, "steps_per_second": 200.0, "backends": ["eager"],
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a run directory of the given files."""

    def written(state: str = "finished", experiment: str = "adding/own", **files: str) -> RunDir:
        (tmp_path / "status.json").write_text(json.dumps({"format": FORMAT, "state": state, "reason": ""}))
        (tmp_path / "config.yaml").write_text(json.dumps({"experiment": experiment}))
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_bytes(text.encode())
        return RunDir.open(tmp_path)

    return written


def size_of(path: Path) -> tuple[int, int]:
    header = path.read_bytes()
    assert header.startswith(b"\x89PNG")
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


def test_metrics_are_read_column_by_column(write):
    curves = Curves(write(metrics_csv=METRICS.replace("\n", "\r\n")))
    assert curves.of("train", "loss") == [(4, 9.0), (9, 1.5)]
    assert curves.of("valid", "mse") == [(5, 7.5)]
    assert curves.of("valid", "accuracy") == []
    assert curves.metrics == ["loss", "mse"]
    assert curves.steps == 10


def test_one_learning_rate_of_all_parameters_is_one_curve(write):
    assert Curves(write(metrics_csv=METRICS)).rates == {"learning rate": [(4, 0.5), (9, 0.25)]}
    two = METRICS.replace("0.25,0.25", "0.25,0.125")
    assert Curves(write(metrics_csv=two)).rates == {
        "lr-Adam/pg1": [(4, 0.5), (9, 0.25)],
        "lr-Adam/pg2": [(4, 0.5), (9, 0.125)],
    }


def test_a_row_that_is_being_written_is_left_out_while_the_run_lasts(write):
    cut = METRICS[:-8]
    assert Curves(write("running", metrics_csv=cut)).steps == 9
    with pytest.raises(RecurlabError, match=r"metrics\.csv: line 7: 5 values for 9 columns$"):
        Curves(write("finished", metrics_csv=cut))


@pytest.mark.parametrize(
    ("text", "message"),
    [("step,train/loss\n1,nine\n", "line 2: train/loss='nine': not a number"),
     ("step,train/loss\n1.5,9\n", "line 2: step='1.5': not a number"),
     ("train/loss\n1\n", "line 1: no column 'step'"),
     ("step,train/loss\n1,2,3\n", "line 2: 3 values for 2 columns"),
     ('step,train/loss\n1,"' + "9" * 200_000 + '"\n', "can't be read: field larger than field limit")],
)  # fmt: skip
def test_damaged_metrics_are_one_line(write, text, message):
    with pytest.raises(RecurlabError) as caught:
        Curves(write(metrics_csv=text))
    assert message in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", None),
        ("metrics", {"a": "b"}),
        ("steps", 1.5),
        ("steps", True),
        ("backends", "eager"),
        ("seconds", "1"),
    ],
)
def test_a_damaged_result_names_the_key(write, key, value):
    assert Result.read(write(result_json=json.dumps(RESULT))).chance == {"mse": 2}
    with pytest.raises(RecurlabError, match=rf"result\.json: {key}="):
        Result.read(write(result_json=json.dumps({**RESULT, key: value})))


def test_the_curves_have_a_panel_for_each_thing_that_was_logged(write):
    def size(*drop: str, metrics: str = METRICS) -> tuple[int, int]:
        for part in drop:
            metrics = metrics.replace(part, "other")
        path = draw_curves(write(metrics_csv=metrics, result_json=json.dumps(RESULT)).path)
        assert path is not None
        return size_of(path)

    width, height = size("lr-")  # the loss, which is the mean squared error too
    assert size()[0] == 2 * width  # beside it the learning rate
    three = size(metrics=METRICS.replace("9.0,9.0", "9.0,8.0"))  # the error is another one
    assert three[0] == 2 * width
    assert three[1] > 1.8 * height


@pytest.mark.parametrize(
    ("metric", "values", "scale"),
    [("loss", "1,10", "log"), ("loss", "1,5", "linear"), ("loss", "1,10,inf", "log"), ("loss", "1,5,inf", "linear"),
     ("loss", "1,nan,10", "log"), ("loss", "-1,10", "linear"), ("loss", "0,10", "linear"),
     ("loss", "nan,inf", "linear"), ("accuracy", "0.1,0.9", "linear"), ("mse", "0.1,0.9", "log")],
)  # fmt: skip
def test_a_curve_that_falls_far_is_drawn_on_a_logarithmic_scale(write, monkeypatch, metric, values, scale):
    """Numbers that are not finite have no part in it, and an accuracy is a share."""
    kept = []
    monkeypatch.setattr("recurlab.results.figures.png", lambda figure, mark=None: kept.append(figure) or b"")
    rows = "".join(f"{step},{value}\n" for step, value in enumerate(values.split(",")))
    draw_curves(write(metrics_csv=f"step,valid/{metric}\n{rows}").path)
    (axes,) = kept[0].axes
    assert (axes.get_title(), axes.get_yscale()) == (metric, scale)


def test_the_level_of_chance_is_a_line_of_its_own(write, monkeypatch):
    kept = []
    monkeypatch.setattr("recurlab.results.figures.png", lambda figure, mark=None: kept.append(figure) or b"")
    draw_curves(write(metrics_csv=METRICS, result_json=json.dumps({**RESULT, "chance": {"loss": 2.5}})).path)
    loss, rate = kept[0].axes
    lines = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert lines == {"training": [9.0, 1.5], "validation": [7.5], "chance": [2.5, 2.5]}
    assert [list(line.get_ydata()) for line in rate.lines] == [[0.5, 0.25]]


@pytest.mark.parametrize("values", ["0.0,-1.0", "nan,nan", "inf,3.0"])
def test_curves_of_any_numbers_are_drawn(write, values):
    first, second = values.split(",")
    run = write(metrics_csv=f"step,train/loss\n1,{first}\n2,{second}\n", experiment="$x_{$ \x07日本")
    assert draw_curves(run.path) == run.curves


def test_nothing_logged_is_no_picture(write):
    run = write(metrics_csv="epoch,step\n")
    assert draw_curves(run.path) is None
    assert not run.curves.exists()
    assert draw_confusion(run.path) is None


def test_confusion_has_the_names_of_its_header(write):
    run = write(confusion_csv='"a,b",$x$\n3,1\n0,0\n')
    assert read_confusion(run) == (["a,b", "$x$"], [[3, 1], [0, 0]])
    assert draw_confusion(run.path) == run.confusion_picture
    assert size_of(run.confusion_picture)[0] > 300


@pytest.mark.parametrize("count", [1, 30, 31, 200])
def test_confusion_of_few_and_many_classes_is_drawn(write, count):
    rows = [",".join(str(int(row == column)) for column in range(count)) for row in range(count)]
    run = write(confusion_csv="\n".join([",".join(map(str, range(count))), *rows]) + "\n")
    assert draw_confusion(run.path) is not None
    assert size_of(run.confusion_picture)[0] < 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "2 classes, but 1 rows of [2] counts"),
     ("a,b\n1,2\n3\n", "2 classes, but 2 rows of [1, 2] counts"),
     ("a\nmany\n", "line 2: count='many': not a number"),
     ("", "0 classes, but 0 rows of [] counts")],
)  # fmt: skip
def test_a_damaged_confusion_is_one_line(write, text, message):
    with pytest.raises(RecurlabError) as caught:
        draw_confusion(write(confusion_csv=text).path)
    assert str(caught.value).endswith(f"confusion.csv: {message}")
