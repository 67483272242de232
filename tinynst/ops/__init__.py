# ruff: noqa: F401
"""The mathematics. Each operation is a pair of functions over NumPy or CuPy arrays:

    y, cache = operation(x, ...)            gradients = operation_backward(dy, cache)

the gradients in the order of the forward's array arguments, and a twin, `operation_naive`, in plain loops.

Notation: N batch, H W height and width, C channels in, O channels out, KH KW kernel; x input, y output, w weights, b bias,
dy the gradient of the loss by y. Images are (N, H, W, C), kernels (KH, KW, C, O): the last axis is contiguous, so a pixel is
one vector and a convolution is `patches @ weights`.
"""

from .activations import relu, relu_backward, relu_naive, scaled_tanh, scaled_tanh_backward, scaled_tanh_naive
from .batch_norm import batch_norm, batch_norm_backward, batch_norm_naive
from .conv import conv2d, conv2d_backward, conv2d_naive
from .conv_transpose import conv_transpose2d, conv_transpose2d_backward, conv_transpose2d_naive
from .fast.parallel import add
from .gram import gram_matrix, gram_matrix_backward, gram_matrix_naive
from .instance_norm import (
    conditional_instance_norm,
    conditional_instance_norm_backward,
    conditional_instance_norm_naive,
    instance_norm,
    instance_norm_backward,
    instance_norm_naive,
)
from .padding import (
    center_crop,
    center_crop_backward,
    center_crop_naive,
    reflect_pad2d,
    reflect_pad2d_backward,
    reflect_pad2d_naive,
)
from .pooling import max_pool2d, max_pool2d_backward, max_pool2d_naive
from .resampling import (
    upsample_bicubic,
    upsample_bicubic_backward,
    upsample_bicubic_naive,
    upsample_nearest,
    upsample_nearest_backward,
    upsample_nearest_naive,
    upsample_smooth,
    upsample_smooth_backward,
    upsample_smooth_naive,
)
