"""From a cell's step to a compiled kernel: trace, generate, compile."""
