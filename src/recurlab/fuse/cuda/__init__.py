"""Kernels for GPUs: CUDA C++, compiled by NVRTC."""
