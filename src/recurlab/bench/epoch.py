"""An epoch of pixel MNIST with the layers of mnist_pixel/indrnn: time and the kernels' share.

The parts are put together here, so that no config is read: Hydra need not be installed.
"""

import sys
import time
import warnings
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch.profiler import ProfilerActivity, profile

from recurlab.data.mnist import MNIST
from recurlab.data.module import DataModule
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.classification import Classification
from recurlab.problems.optimizers import Adam
from recurlab.problems.problem import Problem
from recurlab.problems.schedulers import Constant

LAYER: dict[str, Any] = {
    "hidden_size": 128, "num_layers": 6, "cell": "indrnn", "dropout": 0.1, "variational": True,
}  # fmt: skip
BATCH = 32


def epoch(device: str, module: DataModule, profiled: int = 30) -> list[str]:
    """Train for an epoch on data that have been set up; return what to say of it.

    Args:
        device: cuda or cpu.
        module: of pixel MNIST, set up.
        profiled: steps whose kernels are timed afterwards, on a GPU.
    """
    data = module.data
    model = SequenceModel(data.input_size, data.output_size, head="last", stack="batchnorm", layer=LAYER)
    problem = Classification(model, Adam(lr=2e-4, weight_decay=1e-4), Constant())
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's tips
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu", devices=1, max_epochs=1, limit_val_batches=0,
            num_sanity_val_steps=0, enable_model_summary=False, gradient_clip_val=10.0, gradient_clip_algorithm="value",
            **quiet,
        )  # fmt: skip
        start = time.perf_counter()
        trainer.fit(problem, module)
    seconds, steps = time.perf_counter() - start, trainer.global_step
    backends = sorted({name for layer in problem.recurrent_layers() for name in layer.backends_used.values()})
    lines = [
        f"epoch of pixel MNIST, 6 layers of IndRNN, 128 units, batches of {data.batch_size}, backend "
        f"{', '.join(backends)}: {seconds:.1f} s, {steps} steps, {1000 * seconds / max(1, steps):.2f} ms a step"
    ]
    return lines + ([_share(problem.to(device), module, profiled)] if device == "cuda" else [])


def _share(problem: Problem, module: DataModule, steps: int) -> str:
    """Return the share of training steps in which the GPU runs a kernel."""
    problem.train()
    optimizer = torch.optim.Adam(problem.parameters(), lr=2e-4)
    batches = [batch for _, batch in zip(range(steps + 3), module.train_dataloader(), strict=False)]

    def train(part: list[Any]) -> None:
        for batch in part:
            loss = problem.measure(problem.model(batch.inputs.to("cuda"), None), batch.targets.to("cuda")).loss
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        torch.cuda.synchronize()

    train(batches[:3])
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        train(batches[3:])
        elapsed = time.perf_counter() - start
    events = profiler.key_averages()
    busy = sum(event.self_device_time_total for event in events) / 1e6
    top = sorted(events, key=lambda event: -event.self_device_time_total)[:5]
    names = ", ".join(f"{event.key[:40]} {event.self_device_time_total / 1e6 / elapsed:.0%}" for event in top)
    return f"  of {len(batches) - 3} such steps the kernels take {busy / elapsed:.0%}: {names}"


if __name__ == "__main__":
    made = DataModule(MNIST(batch_size=BATCH), seed=0)
    made.setup()
    print("\n".join(epoch(sys.argv[1], made)))
