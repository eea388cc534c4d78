"""What rows of measurements say of the goals: the bytes counted, the bounds, and what is listed."""

import pytest

from recurlab.bench.goals import (
    GOALS,
    MEDIAN,
    MICRO,
    OVERHEAD,
    RATIO,
    SHARE,
    SPEEDUP,
    STEP,
    figures,
    goals_summary,
    needed_bytes,
)
from recurlab.bench.results import FIELDS


def row(cell, shape, **values):
    usual = {"cell": cell, "shape": shape, "recurrence": "diagonal", "backend": "fused", "option": "none", "heads": "1",
             "dtype": "float32", "tf32": "true", "status": "ok", "copy_gb_s": "1000"}  # fmt: skip
    return dict.fromkeys(FIELDS, "") | usual | values


def found(rows, goal):
    return {figure.point: figure.value for figure in figures(rows) if figure.goal is goal}


@pytest.mark.parametrize(
    ("cell", "forward", "backward"), [("indrnn", 8, 16), ("indy_gru", 16, 32), ("indy_lstm", 24, 44)]
)
def test_the_bytes_that_a_diagonal_cell_has_to_move(cell, forward, backward):
    assert needed_bytes(row(cell, "10x3x5x2")) == (150 * forward, 150 * backward)
    assert needed_bytes(row(cell, "10x3x5x2", dtype="bfloat16")) == (75 * forward, 75 * backward)


def test_many_units_are_held_to_the_bandwidth_of_a_copy_and_few_to_the_time_of_a_step():
    # 10 * 16 * 1024 elements of 8 and 16 bytes in 2 and 1 us, beside 1000 GB/s
    times = {"recurrence_forward_ms": "0.002", "recurrence_backward_ms": "0.001"}
    many, few = row("indrnn", "10x16x1024x2", **times), row("indrnn", "10x16x1023x2", **times)
    assert found([many], SHARE) == pytest.approx(
        {"indrnn tf32 10x16x1024x2 forward": 0.65536, "indrnn tf32 10x16x1024x2 backward": 2.62144}
    )
    assert found([few], STEP) == pytest.approx(
        {"indrnn tf32 10x16x1023x2 forward": 200, "indrnn tf32 10x16x1023x2 backward": 100}
    )
    assert [f.met for f in figures([many])] == [False, True]
    assert [f.met for f in figures([few])] == [False, True]
    assert not found([many], STEP)
    assert not found([few], SHARE)


def test_the_diagonal_gru_is_held_against_torchs_without_their_projections():
    ours = row("indy_gru", "9x2x3x4", recurrence_forward_ms="1", recurrence_backward_ms="3")
    theirs = row("gru", "9x2x3x4", recurrence="dense", backend="torch",
                 recurrence_forward_ms="30", recurrence_backward_ms="42")  # fmt: skip
    point = "indy_gru tf32 9x2x3x4"
    assert found([ours, theirs], SPEEDUP) == {f"{point} forward": 30, f"{point} forward and backward": 18}
    other = theirs | {"dtype": "bfloat16"}
    assert not found([ours, other], SPEEDUP)


def test_dense_layers_are_held_against_torchs_one_by_one_and_in_the_median():
    rows = [
        row(
            "gru",
            f"8x{batch}x{hidden}x4",
            recurrence="dense",
            forward_backward_ratio=ratio,
            recurrence_forward_ms="0.016",
        )
        for batch, hidden, ratio in ((1, 512, "0.2"), (2, 512, "1.5"), (3, 513, "0.3"))
    ]
    assert found(rows, RATIO) == {"gru tf32 8x1x512x4": 0.2, "gru tf32 8x2x512x4": 1.5, "gru tf32 8x3x513x4": 0.3}
    assert found(rows, MEDIAN) == {"gru tf32": 0.3}
    assert found(rows, MICRO) == pytest.approx({"gru tf32 8x1x512x4": 2, "gru tf32 8x2x512x4": 2})


def test_an_option_is_held_against_the_plain_layer():
    plain = row("lstm", "8x2x5x4", recurrence="dense", forward_backward_ms="2")
    rows = [
        plain,
        *(plain | {"option": name, "forward_backward_ms": ms} for name, ms in (("mask", "2.1"), ("zoneout", "3"))),
    ]
    assert found(rows, OVERHEAD) == {"lstm tf32 8x2x5x4 mask": 1.05, "lstm tf32 8x2x5x4 zoneout": 1.5}


def test_the_summary_counts_and_lists_what_is_missed_and_what_was_not_measured():
    times = {"recurrence_forward_ms": "0.002", "recurrence_backward_ms": "0.001"}
    refused = row("lstm", "8x2x5x4", recurrence="dense", status="not supported: no room", option="mask")
    lines = goals_summary([row("indrnn", "10x16x1024x2", **times), refused])
    text = "\n".join(lines)
    assert len([line for line in lines if line.startswith("   nothing measured")]) == len(GOALS) - 1
    assert f"   1 of   2     0.655      1.64  {SHARE.name}: at least 0.8" in lines
    assert f"missed: {SHARE.name}: at least 0.8\n     0.655  indrnn tf32 10x16x1024x2 forward\n" in text + "\n"
    assert lines[-1] == "fused: not supported: no room: 1 points: lstm tf32 8x2x5x4 mask"


def test_a_wrong_kernel_gives_no_figure_and_is_the_yardstick_of_none():
    times = {"recurrence_forward_ms": "1", "recurrence_backward_ms": "1", "forward_backward_ms": "2"}
    plain = row("gru", "8x2x5x4", recurrence="dense", forward_backward_ratio="0.5", status="parity failed", **times)
    rows = [
        plain,
        plain | {"option": "mask", "status": "ok"},
        plain | {"backend": "torch"},
        row("indy_gru", "8x2x5x4", status="parity failed", **times),
        row("indy_gru", "8x2x5x4", dtype="bfloat16", **times),  # whose dense one is of another dtype
    ]
    assert {figure.goal for figure in figures(rows)} == {STEP}
    assert goals_summary(rows)[-2:] == [
        "fused: parity failed: 2 points: gru tf32 8x2x5x4, indy_gru tf32 8x2x5x4",
        "torch: parity failed: 1 points: gru tf32 8x2x5x4",
    ]


def test_a_time_that_was_lost_in_the_projections_gives_no_figure():
    assert not figures([row("indrnn", "10x16x1024x2", recurrence_forward_ms="-0.1", recurrence_backward_ms="")])
