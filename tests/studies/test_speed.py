import csv

import pytest

from measured import rows_in

SWEEP = """\
title: Speed of a layer
question: How fast?
bench:
  cpu: ["shapes=5x2x3x4,7x2x3x4,5x1x3x4", "cells=gru", "backends=torch,eager", repeats=1, threads=1]
"""


@pytest.fixture
def speed(recurlab, tmp_path):
    folder = tmp_path / "experiments" / "speed"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(SWEEP)
    (folder / "README.md").write_text("# Speed\n<!-- results:begin -->\n<!-- results:end -->\n")
    return folder


@pytest.mark.usefixtures("pictures")
def test_the_bench_is_run_and_its_table_written(recurlab, speed, tmp_path):
    (tmp_path / "README.md").write_text("<!-- studies:begin -->\n<!-- studies:end -->\n")
    assert recurlab("study", "report")[0] == 0
    assert "Not run yet." in (speed / "README.md").read_text()
    code, out, err = recurlab("study", "run", "speed")
    assert (code, err) == (0, "")
    assert "7x2x3x4: 2 candidates, 1 rounds" in out
    rows = rows_in(speed)
    assert [(row["shape"], row["backend"]) for row in rows] == [
        (shape, backend) for shape in ("5x2x3x4", "7x2x3x4", "5x1x3x4") for backend in ("torch", "eager")
    ]
    text = (speed / "README.md").read_text()
    assert text.count("| cell | backend | T=5 B=2 H=3 | T=7 | B=1 |") == 2
    cells = {
        line.split(" | ")[1]: line.strip("|").split(" | ")[2:]
        for line in text.partition("peak memory")[0].splitlines()
        if line.startswith("| gru, dense")
    }
    for backend, values in cells.items():
        times = [float(row["forward_backward_ms"]) for row in rows if row["backend"] == backend]
        found = [float(value.replace(",", "")) for value in values]
        assert found == pytest.approx([1000 * ms / steps for ms, steps in zip(times, (5, 7, 5), strict=True)], rel=1e-3)
    assert set(cells) == {"torch", "eager"}
    assert (speed / "results.png").read_bytes().startswith(b"\x89PNG")
    assert not [*speed.glob("speed-*.png")]  # the bench's own, of other shapes
    assert "| [speed](experiments/speed) | How fast? |" in (tmp_path / "README.md").read_text()
    assert recurlab("study", "report", "--check") == (0, "", "")
    assert recurlab("study", "list")[1] == "speed: How fast?\n"


def test_each_processor_has_a_table_its_newest_rows_in_it(recurlab, speed):
    assert recurlab("study", "run", "speed")[0] == 0
    rows = rows_in(speed)

    def put(name, **columns):
        with (speed / name).open("w", newline="") as file:
            # Older files do not tell the kind of device.
            fields = [field for field in rows[0] if field != "kind" or field in columns]
            writer = csv.DictWriter(file, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row | columns for row in rows)

    put("results.csv", peak_mib="123")  # one file held the rows of all processors once
    put("zebra.csv", cpu="Zebra", peak_mib="456")
    put("some-gpu.csv", kind="cuda", device="Some GPU", threads="3", peak_mib="789")
    (speed / "notes.csv").write_text("a,b\n1,2\n")
    assert recurlab("study", "report")[0] == 0
    text = (speed / "README.md").read_text()
    assert text.count("**peak memory") == 2
    assert f"{rows[0]['cpu']}, 1 threads" in text
    assert "Zebra, 1 threads" in text
    assert "| 123 |" not in text
    assert f"{float(rows[0]['peak_mib']):.4g}" in text
    assert "| 456 | 456 | 456 |" in text
    assert "| 789 |" not in text
    assert "3 threads" not in text


def test_layers_beside_other_packages_have_tables(recurlab, speed):
    words = '["shapes=F,4x2x3x4", "cells=gru,indrnn", "backends=torch,eager", repeats=1, threads=1, step=true]'
    (speed / "study.yaml").write_text(f"{SWEEP}beside: {words}\n")
    assert recurlab("study", "run", "speed")[0] == 0
    (cpu,) = {row["cpu"] for row in rows_in(speed)}
    ours = {row["shape"]: row for row in rows_in(speed) if (row["cell"], row["backend"]) == ("gru", "eager")}
    text = (speed / "README.md").read_text()
    for title, name in {"forward": "forward", "forward and backward": "forward_backward", "one step": "step"}.items():
        head = f"**{title}, our time as a multiple of the fastest peer's**, {cpu}, 1 threads; peers: torch "
        _, found, table = text.partition(head)
        assert found, text
        rows = [line for line in table.splitlines() if " torch |" in line]
        # The IndRNN has no peer here, and no column.
        assert rows[:2] == [
            f"| {start}{shape} | {float(ours[shape][f'{name}_to_best_peer']):.2f} torch |"
            for start, shape in (("F ", "5x32x128x64"), ("", "4x2x3x4"))
        ]
    assert recurlab("study", "report", "--check") == (0, "", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title", "beside: [cells=gruu]\ntitle", "experiments/speed/study.yaml: cells='gruu': allowed are"),
        ("cells=gru", "cells=gruu", "experiments/speed/study.yaml: cells='gruu': allowed are"),
        ("7x2", "7x3", "shapes=7x3x3x4: must differ from the first one, 5x2x3x4, in one of T, B and H"),
        ("5x1x3x4", "5x1x3x5", "shapes=5x1x3x5: must differ from the first one"),
        ("cpu:", "cpus:", "bench='cpus': allowed are cpu, gpu; did you mean 'cpu'?"),
        ("question", "metric: a\nquestion", "metric='a': unknown key; allowed are bench, beside, question, title"),
    ],
)
def test_a_mistake_is_one_line(recurlab, speed, old, new, message):
    (speed / "study.yaml").write_text(SWEEP.replace(old, new))
    code, out, err = recurlab("study", "run", "speed")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_settings_are_not_given_on_the_command_line(recurlab, speed):
    code, _, err = recurlab("study", "run", "speed", "repeats=3")
    assert (code, err) == (
        2, "recurlab: 'repeats=3': can't be set here; its settings are in experiments/speed/study.yaml\n"
    )  # fmt: skip
