"""The GPU's kernels: CUDA C++ in the .cu files, and for each of them the Python functions that launch it.

A kernel is a function that a grid of blocks runs, each of some hundred threads. A block's threads share a
small fast memory and wait for each other at `__syncthreads()`; blocks know nothing of each other. A launch
costs the host some microseconds, and reading an array costs more than computing with it, so a kernel does as
much as it can in one pass.

CuPy compiles a file when one of its kernels is first launched, with REAL as float or double. The tests run
the same functions and the same files on the CPU (tests/cuda_on_cpu.py).
"""
