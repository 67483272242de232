"""The operations whose plain version is too slow, with the same arguments and the same numbers.

On the CPU they work in blocks of rows that stay in a core's cache; on a GPU one block is the whole array.
Convolutions are matrix products of patches, and 3x3 kernels go through Winograd's algorithm.
"""
