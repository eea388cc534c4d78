"""Kernels for CPUs: C++, compiled by the host's compiler."""
