"""The cells that the package names, each form of them once: a new cell is tested by being in its tables."""

from recurlab.cells import CELLS, PRESETS
from recurlab.cells.build import build_cell

FORMS = {}
for _name in (*(name for name in CELLS if name not in PRESETS), *PRESETS):
    _cell = build_cell(_name, "dense", 1, {})[0]
    if _cell not in FORMS.values():  # a preset may differ from its cell in the recurrence alone
        FORMS[_name] = _cell
FORMS["lstm_relu"] = build_cell("lstm", "dense", 1, {"activation": "relu"})[0]  # it has no name of its own
