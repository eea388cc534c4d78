"""Whether others look at each call of torch."""

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def observed() -> bool:
    """Return whether a compiler, a tracer or a mode looks at each call of torch: they know its operators only."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_in_torch_dispatch_mode()
