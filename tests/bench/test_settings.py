"""The command line of bench: keys, names and values, before anything is measured."""

import pytest

from recurlab.bench.settings import HELP, SHAPES, BenchSettings, Shape, bench_usage, complete_bench, parse_bench

CASES = {
    "an unknown key": (["cell=gru"], "cell='gru': unknown key; allowed are alone, backends, busy,", "'cells'"),
    "an unknown cell": (["cells=gru,lstmm"], "cells='lstmm': allowed are cudnn_gru, gru, ", "'lstm'"),
    "an unknown recurrence": (["recurrences=diagonl"], "recurrences='diagonl': allowed are dense,", "'diagonal'"),
    "an unknown backend": (["backends=eagr"], "backends='eagr': allowed are ", "'eager'"),
    "an unknown option": (["options=zoneou"], "options='zoneou': allowed are none, zoneout, mask,", "'zoneout'"),
    "an unknown shape": (["shapes=G"], "shapes='G': allowed are A, B, C, D, E, F, TxBxHxI", ""),
    "an empty shape": (["shapes=5x0x3x4"], "shapes='5x0x3x4': each of TxBxHxI must be at least 1", ""),
    "an empty size among several": (["shapes=5x2/0x3x4"], "shapes='5x2/0x3x4': each of TxBxHxI must be", ""),
    "a size too few": (["shapes=5/x2x3x4"], "shapes='5/x2x3x4': allowed are A, B, ", ""),
    "an unknown package": (["backends=jaxx"], "backends='jaxx': allowed are ", "'jax'"),
    "an unknown dtype": (["dtype=float23"], "dtype='float23': allowed are float32,", "'float32'"),
    "no repeats": (["repeats=0"], "repeats=0: must be a whole number of at least 1", ""),
    "threads that are no number": (["threads=all"], "threads='all': must be a whole number of at least 0", ""),
    "a flag that is none": (["input_grad=maybe"], "input_grad='maybe': allowed are true, false", ""),
    "no cells": (["cells="], "cells='': must name at least one of cudnn_gru, gru, ", ""),
    "no folder": (["output="], "output='': must be a folder", ""),
    "no value": (["cells"], "'cells': an argument has the form key=value", ""),
    "heads that don't divide": (["recurrences=block", "shapes=5x2x3x4"], "heads=8: must divide hidden_size=3", ""),
    "an option that no cell has": (["cells=lstm", "options=reset_before"], "options='reset_before': none of the ", ""),
    "a plugin that is not there": (["plugins=nowhere"], "plugins='nowhere': can't be imported", ""),
    "a GPU that is not there": (["device=cuda"], "device='cuda': this machine has none", ""),
    "an option of the parser": (["--frobnicate"], "'--frobnicate': unknown option", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_writes_nothing(recurlab, tmp_path, case, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words, start, hint = CASES[case]
    code, out, err = recurlab("bench", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"recurlab: {start}")
    assert hint in err.rpartition("did you mean")[2]
    assert not list(tmp_path.iterdir())


def test_the_values_of_all_keys():
    assert parse_bench([]) == BenchSettings()
    words = [
        "cells=[gru, gru,lstm]",
        "shapes=B,5x2x3x4",
        "recurrences=",
        "threads=2",
        "input_grad=true",
        "cells=rnn,gru",
    ]
    settings = parse_bench(words)
    assert settings.cells == ("rnn", "gru")
    assert settings.shapes == (SHAPES["B"], Shape(steps=5, batch=2, hidden=3, features=4))
    assert settings.recurrences == ()
    assert settings.threads == 2
    assert settings.input_grad is True


def test_a_shape_of_several_sizes_is_all_of_them():
    words = ["cells=gru", "shapes=5/7x2x3/6x4,A,7x2x3x4"]
    assert [str(shape) for shape in parse_bench(words).shapes] == [
        "5x2x3x4", "5x2x6x4", "7x2x3x4", "7x2x6x4", "784x32x128x64"
    ]  # fmt: skip


def test_help_names_every_key_and_its_default():
    text = bench_usage()
    assert set(HELP) == set(BenchSettings.__dataclass_fields__)
    words = [line.split()[0] for line in text.splitlines()[1:]]
    assert parse_bench(words) == BenchSettings()


def test_completion_of_keys_and_of_the_last_name_in_a_list(recurlab):
    assert complete_bench("re") == ["recurrences=", "repeats="]
    assert complete_bench("cells=lstm,ind") == ["cells=lstm,indrnn", "cells=lstm,indy_gru", "cells=lstm,indy_lstm"]
    assert recurlab("_complete", "recurlab bench dtype=b")[1] == "dtype=bfloat16\n"
