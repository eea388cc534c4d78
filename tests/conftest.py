import gc
import gzip
import logging
import os

# Read when torch is imported: threads that wait for each other sleep, for the machine has no core for each of them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import random
from contextlib import ExitStack, nullcontext, suppress
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch  # noqa: F401  compiled kernels take their OpenMP from it

from compiling import compiled_with
from recurlab.cli import main
from recurlab.fuse.cpu import compiler
from unsteady import unsteady

with suppress(ImportError):  # a machine that only checks its GPU has no matplotlib
    import undrawn

# Nothing under test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"


def warm_server() -> None:
    """Let fresh processes come from one server that has everything imported, whichever test starts it.

    `command_process` starts commands from it, and a grid or a sweep its jobs. None of its processes draws pictures.
    """
    server = forkserver._forkserver
    server.set_forkserver_preload(
        ["recurlab.cli.main", "recurlab.training.run", "recurlab.results.figures", "recurlab.sweep.run", "undrawn"]
    )
    server.set_forkserver_preload = lambda names: None  # a grid's own list is shorter
    ensure_running = server.ensure_running

    def ensure_running_with_the_modules_of_tests() -> None:
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        with patch.dict(os.environ, PYTHONPATH=path.rstrip(os.pathsep)):
            ensure_running()

    server.ensure_running = ensure_running_with_the_modules_of_tests


warm_server()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unsteady", action="store_true", help="multiply by the double of torch's products")


def pytest_configure(config: pytest.Config) -> None:
    """Keep kernels compiled under test beside pytest's own cache, out of the user's."""
    if (cache := getattr(config, "cache", None)) is not None:  # -p no:cacheprovider takes it away
        os.environ["RECURLAB_CACHE"] = str(cache.mkdir("kernels"))
    if config.getoption("--unsteady"):
        doubled = ExitStack()
        doubled.enter_context(unsteady())
        config.add_cleanup(doubled.close)


def pytest_collection_finish() -> None:
    """Leave the tests and all that they import out of every search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def fastest() -> str:
    """The backend that auto takes for a built-in cell on this machine."""
    return "eager" if compiler.unavailable() else "fused"


@pytest.fixture(params=["torch", "double"])
def products(request: pytest.FixtureRequest):
    """Multiply by torch's products, and by a double of them that is less steady."""
    with unsteady() if request.param == "double" else nullcontext():
        yield


@pytest.fixture(scope="module")
def quick_kernels():
    """Compile without optimisation, in a quarter of the time: for what a step computes on a few numbers."""
    with compiled_with("-O0"):
        yield


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


TEXTS = {
    "ptb": ("ptb.char.{}.txt", "ptb.{}.txt"),
    "gutenberg": ("pg.raw.{}.txt", "pg.{}.txt"),
    "tinyshakespeare": ("input.txt",),
    ".": ("input.txt",),
}


def write_texts(top: Path) -> None:
    rng = random.Random(0)
    for corpus, patterns in TEXTS.items():
        (top / corpus).mkdir(exist_ok=True)
        for pattern in patterns:
            for split in ("train", "valid", "test") if "{" in pattern else ("",):
                # Each character often enough to be in every vocabulary.
                words = ["ab", "bca", "c", *(["ROMEO:"] if corpus == "tinyshakespeare" else [])] * 100 + [
                    rng.choice(["ab", "bca", "c"]) for _ in range(60)
                ]
                lines = [" ".join(words[i : i + 5]) for i in range(0, len(words), 5)]
                if "ptb.char" in pattern:
                    lines = [" ".join(line.replace(" ", "_")) for line in lines]
                (top / corpus / pattern.format(split)).write_text("\n".join(lines) + "\n")


def write_music(top: Path) -> None:
    from scipy.io import savemat  # a machine that only checks its GPU has none

    rng = np.random.default_rng(0)
    (top / "polymusic").mkdir()
    for name in ("JSB_Chorales.mat", "Nottingham.mat"):
        content = {}
        for part in ("traindata", "validdata", "testdata"):
            content[part] = np.empty((1, 5), object)
            for place in range(5):
                content[part][0, place] = (rng.random((4 + place, 88)) < 0.1).astype(np.uint8)
        savemat(top / "polymusic" / name, content)


def write_vowels(top: Path) -> None:
    rng = np.random.default_rng(0)
    (top / "japanese-vowels").mkdir()
    header = (
        "@problemName JapaneseVowels\n@dimensions 12\n@equalLength false\n@classLabel true 1 2 3 4 5 6 7 8 9\n@data\n"
    )
    for part in ("TRAIN", "TEST"):
        rows = []
        for speaker in range(1, 10):
            for length in (3, 5, 4, 7):
                channels = [",".join(f"{value:.3f}" for value in rng.normal(size=length)) for _ in range(12)]
                rows.append(":".join([*channels, str(speaker)]))
        (top / "japanese-vowels" / f"JapaneseVowels_{part}.ts").write_text(header + "\n".join(rows) + "\n")


def write_digits(top: Path) -> None:
    rng = np.random.default_rng(0)
    (top / "fsdd").mkdir()
    takes = [(digit, take) for digit in range(10) for take in range(12)]
    lengths = rng.integers(2, 6, len(takes))
    np.savez(
        top / "fsdd" / "fsdd_logmel24.npz",
        feats=rng.normal(size=(lengths.sum(), 24)).astype(np.float16),
        len=lengths.astype(np.int32),
        label=np.array([digit for digit, _ in takes], np.uint8),
        speaker=np.zeros(len(takes), np.uint8),
        index=np.array([take for _, take in takes], np.uint8),
        speakers=np.array(["one"]),
    )


@pytest.fixture(scope="session")
def tiny_data(tiny_mnist, tmp_path_factory) -> Path:
    """A folder as RECURLAB_DATA points at, every corpus a few hundred made-up bytes; and a table of one's own."""
    top = tmp_path_factory.mktemp("tiny_data")
    (top / "mnist").symlink_to(tiny_mnist)
    for write in (write_texts, write_music, write_vowels, write_digits):
        write(top)
    rows = [f"{i % 7} {i} 2.5;{'ab'[i % 2]}" for i in range(40)]
    (top / "own.csv").write_text("\n".join(["wave;kind", *rows]).replace(";", ",") + "\n")
    return top


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


@pytest.fixture(scope="session")
def quick() -> list[str]:
    """Overrides for a run of a second."""
    return [
        "data.length=7", "data.train_size=40", "data.valid_size=12", "data.test_size=13", "data.eval_batch_size=5",
        "data.batch_size=8", "model.hidden_size=6", "trainer.max_epochs=2", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of runs, benches and studies; in other tests each is of one pixel."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", undrawn.DRAWN)


@pytest.fixture(autouse=True)
def _no_log_handlers_left() -> None:
    """wandb and lightning add handlers to captured streams that pytest closes."""
    for name in ("pytorch_lightning", "wandb"):
        logging.getLogger(name).handlers.clear()
