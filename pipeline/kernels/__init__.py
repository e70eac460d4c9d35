"""Compiled kernels (numba). Each has a plain Python twin, and hypothesis holds the two against each other."""
