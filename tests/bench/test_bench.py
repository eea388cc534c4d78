"""The measurements: who is compared with what, what is kept, and what a wrong backend gets."""

import subprocess
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from measured import rows_in
from recurlab.backends import BACKENDS, eager, select
from recurlab.bench import machine, report
from recurlab.bench.candidates import candidates, reference
from recurlab.bench.clock import elapsed
from recurlab.bench.layers import Candidate, Case, prepare_layer
from recurlab.bench.measure import peak_bytes
from recurlab.bench.parity import difference
from recurlab.bench.plan import FULL, items
from recurlab.bench.results import FIELDS, OLDER, BenchResults
from recurlab.bench.settings import Shape, parse_bench

TINY = ["shapes=5x2x3x4", "repeats=1"]


@pytest.fixture
def add_backend(monkeypatch):
    """Enter a backend that runs as the eager one does, its output passed through `change`."""

    def add(name, change, supports=lambda call: None):
        def run(call):
            output, states = eager.run(call)
            return change(output), states

        monkeypatch.setitem(BACKENDS, name, f"nowhere.{name}")
        monkeypatch.setitem(select.MODULES, name, SimpleNamespace(supports=supports, run=run))

    return add


def rows_of(folder):
    return rows_in(folder / "experiments" / "speed")


@pytest.mark.usefixtures("pictures")
def test_a_bench_leaves_a_table_a_csv_and_a_picture(recurlab, tmp_path):
    code, out, err = recurlab("bench", "cells=gru,indrnn", "backends=torch,eager", "options=mask", "repeats=3", TINY[0])
    assert (code, err) == (0, "")
    rows = rows_of(tmp_path)
    found = [(row["cell"], row["recurrence"], row["option"], row["backend"]) for row in rows]
    assert found == [
        ("gru", "dense", "none", "torch"), ("gru", "dense", "none", "eager"), ("gru", "dense", "mask", "eager"),
        ("indrnn", "diagonal", "none", "eager"), ("indrnn", "diagonal", "mask", "eager"),
    ]  # fmt: skip
    usual = rows[0]
    for row in rows:
        assert tuple(row) == FIELDS
        assert (row["shape"], row["dtype"], row["busy"], row["status"]) == ("5x2x3x4", "float32", "0", "ok")
        assert (row["reference"], row["repeats"], row["torch"]) == ("torch.nn.GRU", "3", torch.__version__)
        assert row["threads"] == str(torch.get_num_threads())
        assert row["cpu"]
        assert row["date"]
        assert 0 <= float(row["parity_gap"]) < 2e-5
        assert 0 < float(row["forward_min_ms"]) <= float(row["forward_ms"])
        assert 0 < float(row["forward_backward_min_ms"]) <= float(row["forward_backward_ms"])
        assert float(row["peak_mib"]) > 5 * 2 * 3 * 4 / 2**20  # the output at least
        for name in ("forward", "forward_backward"):
            ratio = float(row[f"{name}_ms"]) / float(usual[f"{name}_ms"])
            assert float(row[f"{name}_ratio"]) == pytest.approx(ratio, rel=1e-3)
    lines = [line for line in out.splitlines() if "5x2x3x4 │" in line]
    assert len(lines) == len(rows) + 1  # and one of the gru beside torch
    # torch was asked for by name
    assert "torch: not measured for gru dense mask, indrnn diagonal, indrnn diagonal mask: torch has no" in out
    (picture,) = (tmp_path / "experiments" / "speed").glob("speed-*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"picture: experiments/speed/{picture.name}" in out


def test_each_processor_has_a_file(recurlab, tmp_path, monkeypatch):
    names = {
        "Intel(R) Xeon(R) Platinum 8488C (family 6 model 143)": "intel-xeon-platinum-8488c-family-6-model-143",
        "AMD EPYC (family 26 model 2)": "amd-epyc-family-26-model-2",
    }
    for name in names:
        monkeypatch.setattr(machine, "processor", lambda name=name: name)
        assert recurlab("bench", "cells=gru", "backends=torch,eager", *TINY)[0] == 0
    folder = tmp_path / "experiments" / "speed"
    kept = [f"{name}.csv" for name in names.values()] + [f"speed-{name}.png" for name in names.values()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    for name, file in names.items():
        assert [row["cpu"] for row in rows_in(folder, f"{file}.csv")] == [name] * 2


def test_a_case_measured_again_takes_the_place_of_the_old_one(recurlab, tmp_path):
    assert recurlab("bench", "cells=gru,rnn", "backends=eager", *TINY)[0] == 0
    before = rows_of(tmp_path)
    assert recurlab("bench", "cells=rnn", "backends=eager,torch", *TINY)[0] == 0
    after = rows_of(tmp_path)
    names = [(row["cell"], row["backend"]) for row in after]
    assert names == [("gru", "torch"), ("gru", "eager"), ("rnn", "eager"), ("rnn", "torch")]
    assert after[1] == before[1]
    assert after[2] != before[2]
    assert recurlab("bench", "cells=rnn", "backends=eager", "dtype=float64", *TINY)[0] == 0
    assert len(rows_of(tmp_path)) == 6  # another dtype is another measurement, of the reference too


@pytest.mark.parametrize("columns", OLDER, ids=len)
def test_rows_of_older_files_are_kept_and_without_a_kind_of_device_of_a_cpu(tmp_path, columns):
    (tmp_path / "abacus.csv").write_text(f"{','.join(columns)}\n{','.join('7' for _ in columns)}\n")
    BenchResults(str(tmp_path), "Abacus").add([dict.fromkeys(FIELDS, "8") | {"kind": "cuda"}])
    assert [(tuple(row), row["device"], row["kind"]) for row in rows_in(tmp_path)] == [
        (FIELDS, "7", "7" if "kind" in columns else "cpu"), (FIELDS, "8", "cuda")
    ]  # fmt: skip


def test_a_plan_for_a_gpu_begins_with_what_matters_most():
    plan = items(FULL, "cuda", "somewhere")
    groups = dict.fromkeys((item.settings.cells, item.settings.dtype, bool(item.settings.options)) for item in plan)
    diagonal = ("indrnn", "indy_gru", "indy_lstm")
    assert list(groups)[:6] == [
        (("gru",), "bfloat16", False), (("lstm",), "bfloat16", False),
        (("gru",), "float32", False), (("lstm",), "float32", False),
        (diagonal, "float32", False), (diagonal, "bfloat16", False),
    ]  # fmt: skip
    assert [item.shape for item in plan[:32:2]] == list(FULL.dense)
    assert all(item.settings.tf32 for item in plan)


@pytest.fixture
def stream(monkeypatch):
    """Return what a GPU is asked to do, in its order."""
    asked = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            asked.append("record")

        def synchronize(self):
            asked.append("wait")

        def elapsed_time(self, end):
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: asked.append(cycles))
    return asked


@pytest.mark.parametrize("queued", [True, False])
def test_a_gpu_sleeps_while_what_is_timed_is_launched(stream, queued):
    found = elapsed(lambda: stream.append("work"), torch.device("cuda"), queued=queued)
    assert found == (1.5, None)
    assert stream == ["wait", *([10_000_000] if queued else []), "record", "work", "record", "wait"]


def test_the_peak_of_a_gpu_is_what_came_on_top(stream, monkeypatch):
    held = {"now": 5, "most": 90}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.update(most=held["now"]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["most"])
    assert peak_bytes(lambda: held.update(most=held["now"] + 8), "cuda") == 8


def test_a_backend_with_wrong_numbers_is_timed_and_no_ratio_is_taken(recurlab, tmp_path, add_backend):
    assert recurlab("bench", "cells=rnn", "backends=eager", *TINY)[0] == 0
    add_backend("fake", lambda output: output * 1.001)
    code, out, err = recurlab("bench", "cells=rnn", "backends=fake,eager", *TINY)
    assert (code, err) == (1, "")
    (wrong,) = [row for row in rows_of(tmp_path) if row["backend"] == "fake"]
    assert wrong["status"] == "parity failed"
    assert float(wrong["parity_gap"]) > 2e-5
    assert min(float(wrong["forward_ms"]), float(wrong["forward_backward_ms"])) > 0
    assert not [name for name in FIELDS if name.endswith("_ratio") and wrong[name]]
    (shown,) = [line for line in out.splitlines() if line.startswith("rnn ") and "│ fake" in line]
    assert {cell.strip() for cell in shown.split("│")[5:]} == {"parity failed", ""}
    (line,) = [line for line in out.splitlines() if line.startswith("rnn dense fake 5x2x3x4: parity failed: ")]
    assert line.endswith("of its largest magnitude, allowed is 2e-05")
    assert [row["status"] for row in rows_of(tmp_path) if row["backend"] != "fake"] == ["ok", "ok"]


@pytest.mark.parametrize(
    "change",
    [lambda o: o.detach() + 0 * o, lambda o: 2 * o - o.detach(), lambda o: o * float("nan"), lambda o: o[..., :1]],
    ids=["no gradient", "twice the gradient", "nan", "another shape"],
)
def test_gradients_and_shapes_are_compared_too(add_backend, change):
    add_backend("fake", change)
    candidate = Candidate(Case("gru", "diagonal", 1, "zoneout"), "fake")
    gap, _ = difference(candidate, Shape(5, 2, 3, 4), parse_bench([]))
    assert gap > 2e-5


def test_a_half_layer_is_held_to_the_float32_one_too(recurlab, add_backend):
    add_backend("fake", lambda output: output * 1.001)  # nothing that half precision could tell
    code, out, _ = recurlab("bench", "cells=indrnn", "backends=fake,eager", "dtype=bfloat16", *TINY)
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines() if "allowed is 2e-05" in line] == [
        "indrnn diagonal fake 5x2x3x4"
    ]


def test_a_backend_that_fails_and_one_that_serves_nothing(recurlab, tmp_path, add_backend):
    def fail(output):
        raise RuntimeError("no more\nroom")

    add_backend("failing", fail)
    add_backend("idle", lambda output: output, supports=lambda call: "it serves nothing")
    code, out, _ = recurlab("bench", "cells=rnn", *TINY)
    assert code == 1
    assert "rnn dense failing 5x2x3x4: failed: RuntimeError: no more room\n" in out
    assert "idle: not measured for rnn dense: it serves nothing\n" in out
    status = {row["backend"]: row["status"] for row in rows_of(tmp_path) if row["cell"] == "rnn"}
    assert status.pop("failing") == "failed: RuntimeError: no more room"
    assert set(status.values()) == {"ok"}
    assert {"torch", "eager"} <= set(status) <= {*BACKENDS, "torch"} - {"idle"}


def test_every_option_and_recurrence_makes_a_case_of_its_own():
    words = ["cells=gru,lstm,indy_gru", "recurrences=dense,block", "heads=2", "shapes=5x2x4x3", "backends=eager,torch"]
    found, refused = candidates(
        parse_bench([*words, "options=zoneout,mask,recurrent_dropout,bidirectional,reset_before"])
    )
    eagers = {candidate.case for candidate in found if candidate.backend == "eager"}
    assert len(eagers) == 3 * 2 * 5 + 2  # only the gru resets after its recurrence by default
    theirs = {(c.case.cell, c.case.recurrence, c.case.option) for c in found if c.backend == "torch"}
    assert theirs == {(cell, "dense", option) for cell in ("gru", "lstm") for option in ("none", "bidirectional")}
    assert all(candidate.backend == "torch" for candidate in refused)
    assert {reference(candidate.case) for candidate in found} <= set(found)


def test_all_candidates_of_a_case_have_the_same_weights_and_input():
    settings = parse_bench(["options=mask"])
    case, shape = Case("rnn", "dense", 1, "bidirectional"), Shape(5, 2, 3, 4)
    ours, theirs = (prepare_layer(Candidate(case, name), shape, settings) for name in ("eager", "torch"))
    assert isinstance(theirs.layer, torch.nn.RNN)
    torch.testing.assert_close(ours.layer.state_dict(), theirs.layer.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(ours.input, theirs.input, rtol=0, atol=0)


def test_the_peak_is_that_of_the_tensors_alive_at_once():
    def block():
        return torch.empty(2**18)  # 1 MiB

    def in_turns():
        for _ in range(3):
            block()

    assert peak_bytes(lambda: [block(), block()], "cpu") == 2 * 2**20
    assert peak_bytes(in_turns, "cpu") == 2**20
    weight = torch.ones(2**18, requires_grad=True)
    peak = peak_bytes(lambda: weight.exp().sum().backward(), "cpu")
    assert 2 * 2**20 <= peak < 2 * 2**20 + 1000  # what exp keeps for its gradient, and the gradient


def test_busy_processes_end_and_threads_return(recurlab, monkeypatch):
    started, plain = [], subprocess.Popen

    def note(*arguments, **options):
        started.append(plain(*arguments, **options))
        return started[-1]

    threads = torch.get_num_threads()
    monkeypatch.setattr(machine.subprocess, "Popen", note)
    with suppress(KeyError), machine.prepared(parse_bench(["busy=2", "threads=3"])):
        assert torch.get_num_threads() == 3
        assert len(started) == 2
        assert all(process.poll() is None for process in started)
        raise KeyError
    assert all(process.poll() is not None for process in started)
    assert torch.get_num_threads() == threads


def test_a_folder_that_can_not_be_used(recurlab, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("mine")
    code, out, err = recurlab("bench", "output=taken", *TINY)
    assert (code, out, err) == (2, "", "recurlab: output='taken': can't be used: File exists\n")
    monkeypatch.setattr(machine, "processor", lambda: "Abacus")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "abacus.csv").write_text("a,b\n1,2\n")
    code, out, err = recurlab("bench", "output=other", *TINY)
    assert (code, out, err) == (2, "", "recurlab: output='other': abacus.csv has other columns; move it away\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "taken"]


@pytest.mark.usefixtures("pictures")
def test_the_picture_groups_a_case_that_was_measured_twice(recurlab, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "_bars", lambda axes, rows, *_: drawn.append([row["cell"] for row in rows]))
    for words in (["cells=gru,rnn", "backends=eager"], ["cells=gru", "backends=torch,eager", "repeats=2"]):
        assert recurlab("bench", *words, *TINY)[0] == 0
    assert recurlab("bench", "cells=rnn,gru", "backends=eager", "shapes=4x2x3x4", "repeats=1")[0] == 0
    assert drawn[-4:] == [["gru", "gru", "rnn"]] * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's compiler meets its own
def test_torch_compile_is_measured_where_it_is_named(recurlab, tmp_path):
    code, out, _ = recurlab("bench", "cells=indrnn", "backends=compile,eager", "options=zoneout", *TINY)
    assert code == 0, out
    compiled = [row for row in rows_of(tmp_path) if row["backend"] == "compile"]
    assert [(row["option"], row["status"]) for row in compiled] == [("none", "ok"), ("zoneout", "ok")]
