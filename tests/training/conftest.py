import json
import struct
from dataclasses import dataclass, field

import pytest

from command_process import only_run
from recurlab.cli import main
from stopped_runs import LANGUAGE, QUICK, enter

BLOCK = 2**15  # of the log of records that a .wandb file is


@dataclass
class Kept:
    """What an offline run's file says."""

    run: object = None
    config: dict = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: list = field(default_factory=list)
    step_metrics: dict = field(default_factory=dict)
    exit_code: int | None = None

    def column(self, name):
        return [(row["_step"], row["trainer/global_step"], row[name]) for row in self.rows if name in row]


def records_of(path):
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, record = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # too little for a header: the rest of the block is empty
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def read(path):
    kept = Kept()
    for record in records_of(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            kept.run = record.run
            kept.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            kept.rows.append({"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            for item in record.summary.update:
                kept.summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "artifact":
            kept.artifacts.append(record.artifact)
        elif kind == "metric":
            kept.step_metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            kept.exit_code = record.exit.exit_code
    return kept


@pytest.fixture
def parts_of():
    """Return a function that reads the offline files of a run directory, one for each time that it was begun."""
    return lambda run: [read(path) for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))]


@pytest.fixture
def with_plugins(tmp_path, monkeypatch):
    """Go into a folder that has the plugins."""
    enter(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert main(["train", *QUICK, *LANGUAGE]) == 0
    return only_run(folder)


@pytest.fixture
def train(capfd):
    """Return a function that trains and returns the exit code and the error output."""

    def run(*words):
        code = main(["train", *words])
        return code, capfd.readouterr().err

    return run
