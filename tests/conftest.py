import gzip
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch  # noqa: F401  compiled kernels take their OpenMP from it

from recurlab.cli import main
from recurlab.fuse import compiler

# Nothing under test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"


def pytest_configure(config: pytest.Config) -> None:
    """Keep kernels compiled under test beside pytest's own cache, out of the user's."""
    if (cache := getattr(config, "cache", None)) is not None:  # -p no:cacheprovider takes it away
        os.environ["RECURLAB_CACHE"] = str(cache.mkdir("kernels"))


@pytest.fixture
def fastest() -> str:
    """The backend that auto takes for a built-in cell on this machine."""
    return "eager" if compiler.unavailable() else "fused"


@pytest.fixture
def skip_unless_able():
    """Return a function that skips the test on a machine without what a backend needs."""

    def skip(backend: str) -> None:
        if backend == "fused" and (reason := compiler.unavailable()):
            pytest.skip(reason)

    return skip


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0))


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four idx files: 60 training and 20 test images whose brightness tells the digit."""
    folder = tmp_path_factory.mktemp("tiny_mnist")
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 20)):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 25, (count, 28, 28)) + labels[:, None, None] * 20
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture
def recurlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command line in an empty folder; return its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECURLAB_DATA", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def quick() -> list[str]:
    """Overrides for a run of a second."""
    return [
        "data.length=7", "data.train_size=40", "data.valid_size=12", "data.test_size=13", "data.eval_batch_size=5",
        "data.batch_size=8", "model.hidden_size=6", "trainer.max_epochs=2", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_log_handlers_left() -> None:
    """wandb and lightning add handlers to captured streams that pytest closes."""
    for name in ("pytorch_lightning", "wandb"):
        logging.getLogger(name).handlers.clear()
