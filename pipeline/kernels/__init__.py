"""Compiled kernels (numba). Each has a plain Python twin, and hypothesis tests compare the two."""
