"""A cell's step: traced, and written as C++."""
