"""The kernels on processors that this machine has not: compiled for them, and run by an emulator."""

import shutil

import pytest
import torch
from torch.testing import assert_close

import foreign_cpu
import recurlab
from recurlab.cells import CELLS, PRESETS
from users_cells import PUBLISHED
from variants import FEATURES, draw, everything

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LAYERS = {
    **{name: {"cell": name} for name in (*CELLS, *PRESETS)},
    "gru_before": {"cell": "gru", "reset": "before"},
    "block": {"recurrence": "block", "heads": 3},
    **{name: {"cell": cell} for name, cell in PUBLISHED.items()},
    "mgu_diagonal": {"cell": PUBLISHED["mgu"], "recurrence": "diagonal"},
}
# As beside the reference on the machine itself: `test_layer_fuzz.py`, `test_float32.py`.
BOUNDS = {torch.float32: 2e-5, torch.float64: 1e-10}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("able"),
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason=f"needs {COMPILER} and {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user)",
    ),
]


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_kernels_of_aarch64_give_the_numbers_of_the_reference(name, dtype, monkeypatch, tmp_path):
    made = foreign_cpu.install(monkeypatch, [COMPILER], [EMULATOR], tmp_path)
    torch.manual_seed(7)
    noise = {"zoneout": 0.3, "dropconnect": 0.2, "recurrent_dropout": 0.2}
    for units, batch, options in ((6, 3, {}), (33, 7, {"bidirectional": True, **noise})):
        layer = recurlab.RNN(FEATURES, units, dtype=dtype, backend="fused", **LAYERS[name], **options)
        x, mask, resets = draw(9, batch, FEATURES, dtype=dtype), draw(9, batch) < 0.7, draw(9, batch) > 1
        flags = {"mask": mask, "resets": resets} if options else {}
        found = everything(layer, x, **flags)
        assert set(layer.backends_used.values()) == {"fused"}
        layer.backend = "eager"
        for one, wanted in zip(found, everything(layer, x, **flags), strict=True):
            if wanted is None:  # the gradient of weights that the step does not use
                assert one is None or not one.any()
                continue
            bound = BOUNDS[dtype] * max(1.0, wanted.abs().max().item())
            assert_close(one, wanted, rtol=0, atol=bound)
    assert len(made) == 1
