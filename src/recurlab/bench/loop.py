"""A run's training loop beside a bare one of torch over the same model, data and optimiser, in turns.

`python -m recurlab.bench.loop [word]...` takes words as `recurlab train`; by default it is the
experiment adding/indrnn.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from statistics import median

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from recurlab.compose import compose
from recurlab.config import Config
from recurlab.process import prepare_process
from recurlab.training.execute import prepare
from recurlab.training.run import train

BLOCK = 20  # steps of each in turn
WARM = 40  # steps that are not counted
PARTS = 3  # of a step, each of which a run tells of
QUIET = ("trainer.limit_val_batches=1", "trainer.limit_test_batches=1")


def bare_steps(config: Config) -> Iterator[float]:
    """Train as a user of torch would write it, without end; yield the seconds of each step."""
    problem, data = prepare(config, 0)
    model, trainer = problem.model.train(), config.trainer
    own = config.optimizer.build(model)
    optimizer = getattr(torch.optim, type(own).__name__)(own.param_groups, **vars(config.optimizer))
    clip = clip_grad_value_ if trainer.gradient_clip_algorithm == "value" else clip_grad_norm_
    while True:
        start = time.perf_counter()
        for batch in data.train_dataloader():
            loss = problem.measure(model(batch.inputs, batch.lengths, batch.resets), batch.targets, batch.lengths).loss
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            if trainer.gradient_clip_val:
                clip(model.parameters(), trainer.gradient_clip_val)
            optimizer.step()
            for layer in problem.recurrent_layers():
                layer.constrain()
            yield time.perf_counter() - start
            start = time.perf_counter()


def beside_bare(words: list[str], steps: int = 400) -> tuple[float, float]:
    """Return the median seconds of a run's step, from batch to batch, and of a bare loop's."""
    bare = bare_steps(compose(words)[0])
    ours, theirs, told, last = list[float](), list[float](), 0, 0.0

    def tell() -> None:
        nonlocal told, last
        if not torch.is_grad_enabled():  # a validation
            return
        step, part = divmod(told, PARTS)
        told += 1
        if part or step >= steps:
            return
        if step:
            ours.append(time.perf_counter() - last)
        if step % BLOCK == 0:
            theirs.extend(next(bare) for _ in range(BLOCK))
        last = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        config, resolved = compose([*words, *QUIET, f"trainer.max_steps={steps}", f"output_dir={folder}"])
        train(config, resolved, tell=tell)
    return median(ours[WARM:]), median(theirs[WARM:])


if __name__ == "__main__":
    prepare_process()
    given = sys.argv[1:] or ["experiment=adding/indrnn"]
    one, other = (1000 * seconds for seconds in beside_bare(given))
    print(f"{' '.join(given)}: {one:.3f} ms a step, a bare loop {other:.3f}: {one / other:.3f} times")
