# ruff: noqa: F401, I001
"""The mathematics. Each operation is a pair of functions over NumPy or CuPy arrays, float32 or float64:

    y, cache = operation(x, ...)            gradients = operation_backward(dy, cache)

The gradients are in the order of the forward's array arguments. A wrong shape or option raises ValueError, a
wrong dtype or arrays on two devices TypeError, with the argument's name. Inputs never change.

N batch, H W height and width, C channels in, O channels out, KH KW kernel; x input, y output, w weights, b
bias, dy the gradient of the loss with respect to y. Images are (N, H, W, C), kernels (KH, KW, C, O): the last
axis is contiguous, so a pixel is one vector and a convolution is `patches @ weights`.

This folder's files hold the plain versions: what is computed. For operations where the plain version is slow,
`ops.fast` has another one, with the same numbers, and `ops.fast.cuda` one for the GPU. Which of them runs as
`ops.NAME` is decided here. `help(ops.NAME)` shows the documentation of the plain version.
"""

from .dispatch import by_device
from .activations import relu, relu_backward, scaled_tanh, scaled_tanh_backward
from .fast.blockwise import gram_matrix, gram_matrix_backward, max_pool2d, max_pool2d_backward
from .fast.blockwise import upsample_smooth, upsample_smooth_backward
from .fast.conv import conv2d, conv2d_backward, conv_transpose2d, conv_transpose2d_backward
from .fast.cuda import activations as gpu_activations
from .fast.cuda import conv as gpu_conv
from .fast.cuda import gram as gpu_gram
from .fast.cuda import norms as gpu_norms
from .fast.cuda import resampling as gpu_resampling
from .fast.norms import batch_norm, batch_norm_backward, instance_norm, instance_norm_backward
from .fast.norms import conditional_instance_norm, conditional_instance_norm_backward
from .fast.parallel import add
from .padding import center_crop, center_crop_backward, reflect_pad2d, reflect_pad2d_backward
from .resampling import upsample_bicubic, upsample_bicubic_backward
from .resampling import upsample_nearest, upsample_nearest_backward

# On CuPy arrays hand-written kernels run, on all others what was imported above
_KERNELS = {
    gpu_activations: "add relu_backward scaled_tanh scaled_tanh_backward",
    gpu_conv: "conv2d conv2d_backward conv_transpose2d conv_transpose2d_backward",
    gpu_gram: "gram_matrix gram_matrix_backward",
    gpu_norms: "batch_norm batch_norm_backward instance_norm instance_norm_backward "
    "conditional_instance_norm conditional_instance_norm_backward",
    gpu_resampling: "max_pool2d max_pool2d_backward reflect_pad2d reflect_pad2d_backward "
    "upsample_bicubic upsample_bicubic_backward upsample_nearest upsample_nearest_backward "
    "upsample_smooth upsample_smooth_backward",
}
for _file, _names in _KERNELS.items():
    for _name in _names.split():
        globals()[_name] = by_device(globals()[_name], getattr(_file, _name))
