"""metrics.csv: what is logged is written, and what came after a checkpoint is taken back."""

import csv
import os

import pytest

from recurlab.training.metrics_csv import FLUSH, MetricsCsv, read_rows


def logged(path, count, rows=None):
    """Log as many steps, each with its own loss, and a validation after each third."""
    metrics = MetricsCsv(path, rows)
    for step in range(count):
        metrics.log_metrics({"train/loss": step / 2, "epoch": 0}, step)
        if step % 3 == 2:
            metrics.log_metrics({"valid/mse": step / 4, "epoch": 0}, step)
    return metrics


def content(path):
    """Return the rows as a reader of its own sees them."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_in_order_and_those_that_come_later_are_empty_before(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path)
    metrics.log_metrics({"train/loss": 1.5, "epoch": 0}, 4)
    metrics.save()
    metrics.log_metrics({"lr": 0.1}, 9)
    metrics.log_metrics({"valid/mse": 2.0, "epoch": 1}, 9)
    assert metrics.rows == 3
    metrics.finalize("success")
    assert path.read_text() == "epoch,lr,step,train/loss,valid/mse\n0,,4,1.5,\n,0.1,9,,\n1,,9,,2.0\n"


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 8])
def test_rows_after_the_checkpoint_are_cut(tmp_path, kept):
    """A run that was killed has logged more than its last checkpoint knows of."""
    path = tmp_path / "metrics.csv"
    logged(path, 6).save()
    before = content(path)
    assert len(before) == 8
    metrics = MetricsCsv(path, rows=kept)
    assert metrics.rows == kept
    assert content(path) == before[:kept]
    metrics.log_metrics({"train/loss": 7.0, "epoch": 1}, 6)
    metrics.save()
    assert [row["step"] for row in content(path)] == [*(row["step"] for row in before[:kept]), "6"]
    assert metrics.rows == kept + 1


def test_a_file_of_another_training_is_not_gone_on_with(tmp_path):
    path = tmp_path / "metrics.csv"
    logged(path, 3).save()
    again = logged(path, 2)
    assert not path.exists()
    again.save()
    assert [row["step"] for row in content(path)] == ["0", "1"]


def test_what_is_logged_is_written_from_time_to_time(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path)
    for step in range(FLUSH + 1):
        metrics.log_metrics({"train/loss": 1.0}, step)
        assert (len(content(path)) if path.exists() else 0) == (step + 1) // FLUSH * FLUSH


def test_rows_are_on_the_disk_before_a_checkpoint_counts_them(tmp_path, monkeypatch):
    path, synced, plain = tmp_path / "metrics.csv", [], os.fsync

    def listening(descriptor):
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", listening)
    logged(path, 2).sync()
    assert (path.stat().st_ino, path.stat().st_size) in synced
    assert tmp_path.stat().st_ino in [number for number, _ in synced]


WHOLE = "step,train/loss\n0,1.5\n1,\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [(WHOLE, 2), (WHOLE + "2", 2), (WHOLE + "2,3,4\n", 2), (WHOLE + "2,x\n3,1\n", 2), (WHOLE + ",1\n", 2),
     (WHOLE + "2,inf\n", 3), ("a,b\n1,2\n", 0), ("", 0), (None, 0)],
)  # fmt: skip
def test_rows_are_read_up_to_the_first_that_is_not_whole(tmp_path, text, count):
    path = tmp_path / "metrics.csv"
    if text is not None:
        path.write_text(text)
    assert [row["step"] for row in read_rows(path)] == ["0", "1", "2"][:count]
