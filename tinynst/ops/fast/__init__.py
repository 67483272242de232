"""The same numbers as the plain operations, faster: blocks over the cores, products in panels, Winograd's convolution."""
