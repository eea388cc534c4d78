"""What of a bench's rows is entered into the table by which `auto` chooses on a GPU, and what is not."""

import csv
from dataclasses import asdict

import pytest

from recurlab.bench import results
from recurlab.bench.adopt import adopt
from recurlab.errors import RecurlabError
from recurlab.fuse import measured

FIRST, SECOND = "2026-12-01T09:30:00+00:00", "2026-12-02T09:30:00+00:00"


@pytest.fixture
def table(monkeypatch, tmp_path):
    """Give the package an empty table; return its path."""
    path = tmp_path / "package" / "measured.csv"
    path.parent.mkdir()
    path.write_text(",".join(measured.FIELDS) + "\n")
    monkeypatch.setattr(measured, "PATH", path)
    return path


@pytest.fixture
def bench(tmp_path):
    """Return a function that writes rows as a bench does and returns the file's path."""

    def write(rows, fields=results.FIELDS):
        path = tmp_path / "gpu.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def row(backend, forward, both, **values):
    usual = {"device": "NVIDIA H200", "cpu": "a CPU", "threads": "8", "busy": "0", "dtype": "bfloat16", "tf32": "true",
             "input_grad": "false", "shape": "512x64x256x128", "cell": "gru", "recurrence": "dense", "heads": "1",
             "option": "none", "backend": backend, "status": "ok", "forward_ms": forward, "forward_backward_ms": both,
             "date": FIRST, "capability": "9.0"}  # fmt: skip
    return dict.fromkeys(results.FIELDS, "") | usual | values


def pair(fused=("1", "3"), torch=("2", "4"), **values):
    return [row("torch", *torch, **values), row("fused", *fused, **values)]


def entered(path):
    """Return the cell, precision, sizes and ratios of the table's rows."""
    names = ("cell", "dtype", "hidden", "batch", "forward_ratio", "forward_backward_ratio")
    return [tuple(asdict(ratio)[name] for name in names) for ratio in measured.read(path)]


def test_rows_beside_torchs_become_ratios_in_order(table, bench):
    rows = [
        *pair(),
        *pair(shape="512x1x256x128"),
        *pair(dtype="float32", cell="lstm"),
        *pair(dtype="float32", tf32="false", cell="rnn"),
        *pair(dtype="float16", cell="cudnn_gru", fused=("7", "1"), torch=("3", "3")),
    ]
    lines = adopt(bench(rows))
    assert entered(table) == [
        ("gru", "bfloat16", 256, 1, 0.5, 0.75), ("gru", "bfloat16", 256, 64, 0.5, 0.75),
        ("gru", "float16", 256, 64, 2.333, 0.3333), ("lstm", "tf32", 256, 64, 0.5, 0.75),
        ("rnn_tanh", "float32", 256, 64, 0.5, 0.75),
    ]  # fmt: skip
    assert lines == [
        "fused takes 0.75 of cuDNN's time (gru dense bfloat16, H=256 B=1 on NVIDIA H200, 2026-12-01)",
        "fused takes 0.75 of cuDNN's time (gru dense bfloat16, H=256 B=64 on NVIDIA H200, 2026-12-01)",
        *lines[2:5],
        f"{table}: 5 new of 5 measurements, 5 rows in all",
    ]
    assert {(ratio.capability, ratio.device, ratio.date) for ratio in measured.read(table)} == {
        ("9.0", "NVIDIA H200", FIRST)
    }


def test_the_newest_measurement_of_a_point_counts_in_whatever_order_they_come(table, bench):
    other = pair(shape="512x1x256x128")
    adopt(bench([*pair(), *other]))
    newer = bench(pair(fused=("1", "8"), date=SECOND, device="NVIDIA H100"))
    assert adopt(newer) == [
        "fused takes 2 of cuDNN's time (gru dense bfloat16, H=256 B=64 on NVIDIA H100, 2026-12-02), 0.75 before",
        f"{table}: 1 new of 1 measurements, 2 rows in all",
    ]
    before = table.read_bytes()
    for rows in (pair(fused=("1", "8"), date=SECOND), [*pair(), *other]):
        assert adopt(bench(rows))[0].startswith(f"{table}: 0 new of ")
        assert table.read_bytes() == before
    assert entered(table) == [("gru", "bfloat16", 256, 1, 0.5, 0.75), ("gru", "bfloat16", 256, 64, 0.5, 2)]
    adopt(bench(pair(capability="8.0")))
    assert len(entered(table)) == 3


def test_of_one_run_the_steps_and_features_that_speak_least_for_the_kernels_count(table, bench):
    adopt(bench([*pair(), *pair(fused=("9", "9"), shape="9x64x256x128"), *pair(shape="999x64x256x1")]))
    assert entered(table) == [("gru", "bfloat16", 256, 64, 4.5, 2.25)]


REFUSED = {
    "1 parity failed": [row("torch", "2", "4"), row("fused", "1", "3", status="parity failed")],
    "1 not supported": [row("torch", "2", "4"), row("fused", "", "", status="not supported: no room")],
    "1 failed": [row("torch", "2", "4"), row("fused", "", "", status="failed: RuntimeError: x")],
    "1 of no GPU": pair(capability=""),
    "1 without torch's layer beside it": [row("fused", "1", "3")],
    "2 without torch's layer beside it": [
        row("torch", "2", "4"), row("fused", "1", "3", date=SECOND),
        row("fused", "1", "3", cell="indy_gru", recurrence="diagonal"),
    ],
    "1 without torch's layer beside it, 1 parity failed": [
        row("torch", "2", "4", status="failed: x"), row("fused", "1", "3"),
        row("fused", "1", "3", status="parity failed", shape="1x2x3x4"),
    ],
    "no row of fused without options": [row("torch", "2", "4"), row("eager", "1", "3"),
                                        *pair(option="bidirectional")],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "rows"), REFUSED.items())
def test_what_gives_no_ratio_is_counted_and_is_an_error_where_there_is_nothing_else(table, bench, reason, rows):
    before, path = table.read_bytes(), bench(rows)
    with pytest.raises(RecurlabError) as error:
        adopt(path)
    assert str(error.value) == f"{path}: nothing can be entered: {reason}"
    assert table.read_bytes() == before
    lines = adopt(bench([*rows, *pair(shape="5x6x7x8")]))
    assert lines[2:] == ([f"not entered: {reason}"] if reason[0].isdigit() else [])
    assert entered(table) == [("gru", "bfloat16", 7, 6, 0.5, 0.75)]


def test_a_file_that_is_none_of_a_bench_on_a_gpu_is_an_error_and_leaves_the_table(table, bench, tmp_path):
    before = table.read_bytes()
    (tmp_path / "binary.csv").write_bytes(b"\xff\x00")
    cases = {
        tmp_path / "absent.csv": "can't be read: No such file or directory",
        tmp_path: "can't be read: Is a directory",
        tmp_path / "binary.csv": "can't be read: ",
        bench([], ["a"]): "not the rows of a bench on a GPU: no column 'device'",
    }
    for path, reason in cases.items():
        with pytest.raises(RecurlabError, match=f"^{path}: {reason}"):
            adopt(path)
    with pytest.raises(RecurlabError, match=r"no column 'capability'$"):
        adopt(bench(pair(), results.OLDER[0]))
    for values in (
        {"shape": "axb"}, {"fused": ("1", "nan")}, {"torch": ("0", "1")}, {"fused": ("", "1")}, {"cell": "grue"},
        {"shape": "1x0x2x3"},
    ):  # fmt: skip
        with pytest.raises(RecurlabError, match=r"cell='.*' shape='.*': no row of a bench: "):
            adopt(bench([*pair(**values), *pair(shape="5x6x7x8")]))
    assert table.read_bytes() == before


def test_a_table_that_can_not_be_written_is_named_and_stays_whole(table, bench, monkeypatch):
    def write(self, target):
        raise PermissionError(13, "Permission denied")

    before = table.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", write)
    with pytest.raises(RecurlabError, match=f"^{table}: can't be written: Permission denied$"):
        adopt(bench(pair()))
    assert table.read_bytes() == before
    assert [path.name for path in table.parent.iterdir()] == [table.name]


def test_a_bench_on_a_gpu_names_its_compute_capability(monkeypatch):
    from recurlab.bench.machine import environment
    from recurlab.bench.settings import BenchSettings

    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (12, 0))
    assert environment(BenchSettings(device="cuda"))["capability"] == "12.0"
    assert environment(BenchSettings())["capability"] == ""


def test_a_file_from_before_rows_had_a_compute_capability_goes_on(tmp_path):
    folder = tmp_path / "speed"
    kept = results.BenchResults(str(folder), "A GPU")
    kept.add([row("torch", "2", "4")])
    newer = len(results.FIELDS) - len(results.OLDER[0])
    lines = [line.rsplit(",", newer)[0] for line in kept.csv.read_text().splitlines()]
    kept.csv.write_text("\n".join(lines) + "\n")
    again = results.BenchResults(str(folder), "A GPU")
    again.add([row("fused", "1", "3")])
    with kept.csv.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(each["backend"], each["capability"]) for each in found] == [("torch", ""), ("fused", "9.0")]
