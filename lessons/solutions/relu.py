"""ReLU: max(x, 0). Its gradient passes where x is above zero."""

import numpy as np


def relu(x):
    return np.maximum(x, 0), x


def relu_backward(dy, x):
    return dy * (x > 0)
