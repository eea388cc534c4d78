"""A forward and a backward pass of a few fused layers, small and odd: what compute-sanitizer is to watch.

Usage: python one_pass.py [cuda | cpu]. Every layer has noise, a mask and resets, in both directions.
"""

import sys

import torch

import recurlab
from recurlab.bench.machine import lost
from recurlab.bench.stages import LOST

# Cell, recurrence, units, batch, steps: one block and several, and for the last ones a time axis cut into chunks.
LAYERS = (
    ("indrnn", "diagonal", 37, 3, 5),
    ("indy_gru", "diagonal", 37, 3, 5),
    ("indy_lstm", "diagonal", 37, 3, 5),
    ("gru", "dense", 40, 3, 4),
    ("gru", "dense", 264, 17, 4),
    ("lstm", "dense", 40, 3, 4),
    ("lstm", "dense", 136, 9, 4),
    ("rnn", "block", 48, 5, 4),
    ("indy_gru", "diagonal", 33, 1, 700),
)


def prepared(device, cell, recurrence, units, batch, steps, dtype):
    """Return a layer, its input, and the masks of its call."""
    torch.manual_seed(0)
    layer = recurlab.RNN(
        5, units, bidirectional=True, device=device, dtype=dtype, cell=cell, recurrence=recurrence,
        heads=4 if recurrence == "block" else 1, backend="fused", zoneout=0.1, recurrent_dropout=0.1,
    )  # fmt: skip
    x = torch.randn(steps, batch, 5, device=device, dtype=dtype, requires_grad=True)
    return layer, x, {name: torch.rand(steps, batch, device=device) < p for name, p in (("mask", 0.8), ("resets", 0.1))}


def one_pass(*given):
    layer, x, masks = prepared(*given)
    output, _ = layer(x, **masks)
    output.float().square().sum().backward()
    leaves = (output, *(leaf.grad for leaf in (x, *layer.parameters())))
    assert all(tensor.isfinite().all().item() for tensor in leaves)


def main(device="cuda"):
    ran, failed = 0, False
    for dtype in (torch.float32, torch.bfloat16):
        for layer in LAYERS:
            print(f"{layer} {dtype}: ", end="", flush=True)
            try:
                one_pass(device, *layer, dtype)
            except recurlab.RecurlabError as refusal:
                print(f"not served: {refusal}", flush=True)
            except Exception as error:  # whatever one does, the others are watched
                failed = True
                print(f"failed: {type(error).__name__}: {error}", flush=True)
            else:
                ran += 1
                print("done", flush=True)
            if (reason := lost(torch.device(device))) is not None:
                print(f"{LOST}{reason}", flush=True)
                return 1
    return 0 if ran and not failed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
