import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recurlab.errors import RecurlabError
from recurlab.training import LOGGERS
from recurlab.training.loggers import Csv, TensorBoard, Wandb

CONFIG = {"experiment": "adding"}


def write(run, steps, start=0):
    """Log a row for each step, as a training does, and one of the validation every third."""
    (logger,) = TensorBoard().build(run, CONFIG, start)
    for step in range(start, start + steps):
        logger.log_metrics({"train/loss": 1 / (step + 1), "epoch": step // 3}, step=step)
        if step % 3 == 2:
            logger.log_metrics({"valid/loss": 2.0 * step}, step=step)
    return logger


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"project": "a/b"}, r"logger\.project='a/b': must be 1 to 128 characters, none of them one of / \\ # \? % :"),
        ({"project": ""}, r"logger\.project='': must be"),
        ({"tags": ["fine", "x" * 65]}, r"logger\.tags=.*: each must be 1 to 64 characters"),
        ({"tags": [""]}, r"logger\.tags=\[''\]: each must be"),
    ],
)
def test_what_wandb_would_refuse_is_found_before_the_run(options, said):
    with pytest.raises(RecurlabError, match=said):
        Wandb(**options)


def scalars(run):
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("start", [0, 3, 4, 7])
def test_tensorboard_shows_each_step_of_a_continued_run_once(tmp_path, start):
    """A run that is killed after step 6 goes on from a checkpoint before its end, from its end, or from nothing."""
    logger = write(tmp_path, 7)
    logger.log_metrics({"lr": 0.5}, step=start)  # right before the checkpoint, and again after it
    logger.save()  # killed: not closed
    time.sleep(1.1)  # files are read in the order of their names, which begin with the second
    logger = write(tmp_path, 9 - start, start=start)
    logger.log_metrics({"lr": 0.5}, step=start)
    logger.finalize("success")
    found = scalars(tmp_path)
    assert [step for step, _ in found["train/loss"]] == list(range(9))
    assert [value for _, value in found["train/loss"]] == pytest.approx([1 / (step + 1) for step in range(9)])
    assert found["valid/loss"] == [(2, 4.0), (5, 10.0), (8, 16.0)]
    assert found["lr"] == [(start, 0.5)]
    assert "hp_metric" not in found


def test_the_others_have_nothing_to_finish(tmp_path):
    for spec in (Csv(), TensorBoard()):
        spec.finish(tmp_path / "best.ckpt", {"test/loss": 1.0})
        spec.close()
    assert Csv().build(tmp_path, CONFIG, 5) == []
    assert list(tmp_path.iterdir()) == []
    assert {LOGGERS[name] for name in LOGGERS} == {Csv, TensorBoard, Wandb}
