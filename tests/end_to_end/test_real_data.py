"""What the experiments promise, on real data and at full length: minutes each."""

import json
import os

import pytest

needs_data = pytest.mark.skipif("RECURLAB_DATA" not in os.environ, reason="RECURLAB_DATA points at no real data")


def metrics_of(folder):
    (path,) = folder.rglob("result.json")
    return json.loads(path.read_text())


@pytest.fixture
def train(recurlab, tmp_path):
    def run(*overrides: str):
        code, _, err = recurlab("train", *overrides, "trainer.enable_progress_bar=false")
        assert (code, err) == (0, "")
        return metrics_of(tmp_path)

    return run


@pytest.mark.slow
def test_indrnn_solves_the_adding_problem_within_a_minute(train):
    result = train("experiment=adding/indrnn")
    assert result["metrics"]["test/mse"] < 0.01
    assert result["seconds"] < 60


@pytest.mark.slow
@pytest.mark.data
@needs_data
@pytest.mark.parametrize(("cell", "accuracy"), [("gru", 0.975), ("indy_gru", 0.95), ("lstm", 0.95)])
def test_rows_of_mnist_are_learnt_by_every_cell(train, cell, accuracy):
    result = train("experiment=mnist_row/gru", f"cell={cell}", f"data.dir={os.environ['RECURLAB_DATA']}/mnist")
    assert result["metrics"]["test/accuracy"] > accuracy
    assert result["seconds"] < 300


@pytest.mark.slow
@pytest.mark.data
@needs_data
def test_pixels_of_mnist_run(train):
    limits = [f"trainer.limit_{part}_batches={count}" for part, count in (("train", 20), ("val", 1), ("test", 1))]
    folder = f"data.dir={os.environ['RECURLAB_DATA']}/mnist"
    result = train("experiment=mnist_pixel/indrnn", *limits, "trainer.max_epochs=1", folder)
    assert result["steps"] == 20
