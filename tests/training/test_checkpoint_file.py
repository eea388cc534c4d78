"""What a checkpoint holds of Lightning's own counters means what this package takes it for."""

import os

import pytest
import pytorch_lightning
import torch
from pytorch_lightning import Callback, LightningModule

from recurlab.config import TrainerConfig
from recurlab.data.adding import Adding
from recurlab.data.module import DataModule
from recurlab.training.checkpoint_file import Checkpoint, begin_epoch_anew
from recurlab.training.checkpoints import WholeFiles
from recurlab.training.metrics_csv import MetricsCsv, read_rows
from recurlab.training.trainer import make_trainer, quiet

READ = ("2.6.4", "2.6.6")  # the versions of Lightning that checkpoint_file.py was written for, and these tests run with
HINT = (
    f"pytorch-lightning {pytorch_lightning.__version__}: checkpoint_file.py was written for {' and '.join(READ)}; look "
    "up what this version counts in fit_loop.state_dict(), in epoch_progress and epoch_loop.batch_progress"
)
EPOCHS, BATCHES = 3, 3
STEPS = [(epoch, batch) for epoch in range(EPOCHS) for batch in range(BATCHES)]


class Recorder(LightningModule):
    """Learns nothing; keeps which batches it was given, the epochs whose start it was told, and its validations.

    It logs each step, with Lightning's own number for it.
    """

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.given, self.started, self.validated = [], [], 0

    def on_train_epoch_start(self):
        self.started.append(self.current_epoch)

    def training_step(self, batch, batch_idx):
        self.given.append((self.current_epoch, batch_idx, batch.targets.sum().item()))
        self.log("train/loss", self.weight, batch_size=1)
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saver(Callback):
    """Saves just before a batch or, where that is None, at the end; takes up what it was given, as `Checkpoints`."""

    def __init__(self, path, before=None):
        self.path, self.before = path, before
        self.resumed = self.fetched = False

    def on_train_start(self, trainer, pl_module):
        if self.resumed:
            begin_epoch_anew(trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.before and not self.resumed:
            self.fetched = True
            trainer.save_checkpoint(self.path)
            self.fetched = False

    def on_train_end(self, trainer, pl_module):
        if self.before is None and not self.resumed:
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if self.fetched:
            Checkpoint(checkpoint).leave_out_fetched_batch()

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        saved = Checkpoint(checkpoint)
        saved.reopen_epoch()
        trainer.datamodule.skip(*saved.position)
        self.resumed = True


def fit(saver, start=None, **limits):
    torch.manual_seed(0)
    data = DataModule(Adding(length=3, train_size=12, valid_size=4, test_size=4, batch_size=4), seed=0)
    config = TrainerConfig(accelerator="cpu", enable_progress_bar=False, max_epochs=EPOCHS, **limits)
    module = Recorder()
    with quiet():
        logger = MetricsCsv(saver.path.with_name("metrics.csv"))
        trainer = make_trainer(config, [saver], logger=logger, log_every_n_steps=1)
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
    rows = read_rows(saver.path.with_name("metrics.csv"))
    module.logged = [int(row["step"]) for row in rows]
    return module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a training is given that was never stopped."""
    return fit(Saver(tmp_path_factory.mktemp("whole") / "end.ckpt"))


@pytest.mark.parametrize("position", STEPS[1:])
def test_a_training_goes_on_with_the_batch_before_which_it_was_saved(whole, tmp_path, position):
    path, done = tmp_path / "saved.ckpt", STEPS.index(position)
    fit(Saver(path, before=position))
    saved = Checkpoint.read(path)
    epoch, batch = position
    assert (saved.position, saved.steps) == (position, done), HINT
    assert saved.lengths == {"max_epochs": epoch + (batch > 0), "max_steps": done}, HINT
    batches = torch.load(path, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert set(batches["current"].values()) == {batch}, HINT
    assert not batches["is_last_batch"], HINT
    rest = fit(Saver(path), path)
    assert rest.logged == whole.logged[done:], HINT
    assert rest.given == whole.given[done:], HINT
    assert rest.validated == EPOCHS - epoch, HINT
    assert rest.started == list(range(epoch + 1, EPOCHS)), HINT


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_training_goes_on_that_has_ended_by_its_number_of_steps(whole, tmp_path, steps):
    """Within an epoch, after its last batch, and after the first of the next one."""
    path = tmp_path / "saved.ckpt"
    assert fit(Saver(path), max_steps=steps).given == whole.given[:steps]
    saved = Checkpoint.read(path)
    saved.reopen_epoch()
    assert (saved.position, saved.steps) == (divmod(steps, BATCHES), steps), HINT
    rest = fit(Saver(path), path)
    assert (rest.given, rest.logged) == (whole.given[steps:], whole.logged[steps:]), HINT


def synced(monkeypatch, path):
    """Return a list of what is brought to the disk: whose content, how many bytes, and whether `path` was there."""
    found, plain = [], os.fsync

    def listening(descriptor):
        about = os.fstat(descriptor)
        found.append((about.st_ino, about.st_size, path.exists()))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", listening)
    return found


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a machine that loses its power may keep the name without the content."""
    path = tmp_path / "last.ckpt"
    found = synced(monkeypatch, path)
    WholeFiles().save_checkpoint({"state_dict": {"weight": torch.ones(3)}}, path)
    about, folder = path.stat(), tmp_path.stat()
    assert (about.st_ino, about.st_size, False) in found
    assert folder.st_ino in [number for number, _, there in found if there], "the name itself"
    assert Checkpoint.read(path).weights["weight"].tolist() == [1, 1, 1]
