import csv
import os
import warnings
from pathlib import Path

import optuna
import pytest

from recurlab.sweep.store import Store, quiet_optuna, sqlite


@pytest.fixture(scope="session")
def opened(tmp_path_factory):
    """A store and its storage, whose tables take longer to make than most tests of it."""
    store = Store(sqlite(tmp_path_factory.mktemp("store") / "sweep.db"), heartbeat=100, retries=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental of Optuna's heartbeats
        with quiet_optuna(), store.open() as storage:
            yield store, storage


@pytest.fixture
def toys(monkeypatch):
    """Words of a run of a second, on a data set that is found by all processes."""
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    return [
        "plugins=[sweep_toys]", "data={name: toy_sweep, fate: well, offset: 0.0, halt: -1}", "cell=rnn",
        "backend=eager", "model.hidden_size=3", "trainer.accelerator=cpu", "trainer.max_epochs=2",
        "sweep.heartbeat=2",
    ]  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Return a function that gives the rows of a sweep's results."""

    def read(folder="runs/toy_sweep/rnn"):
        with (tmp_path / folder / "results.csv").open() as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def studies(tmp_path):
    """Return a function that gives the trials of a study, as Optuna has kept them."""

    def trials(name="toy_sweep/rnn", file="runs/toy_sweep/rnn/sweep.db"):
        storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / file}")
        try:
            return optuna.load_study(study_name=name, storage=storage).get_trials()
        finally:
            storage.remove_session()
            storage.engine.dispose()

    return trials
