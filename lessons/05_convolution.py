# %% [markdown]
# # 5. Convolution in two loops
#
# **After this lesson you can** write a convolution and all three of its gradients with two loops, and you
# know why those loops are all that there is to it.
#
# Convolutions do nearly all the work in every network of this library. About 60 minutes. You need lessons 1
# and 2.

# %%
import numpy as np

from tinynst import check, gradcheck, ops, show
from tinynst.data import images
from tinynst.samples import PHOTOS

photo = images.load(PHOTOS / "hawa_mahal.jpg", size=128)
grey = photo.mean(axis=2)

# %% [markdown]
# ## One output pixel
#
# Take a small square of a picture, multiply it number by number with a small table of weights, and add
# everything up. The result is one number: one pixel of a new picture. Move the square by one pixel and do it
# again. That is a **convolution**, and the table is called the **kernel**.
#
# With three different kernels of 3 x 3 numbers:

# %%
blur = np.ones((3, 3)) / 9
down = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]]) / 3
sharpen = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])


def convolve_grey(picture, kernel):
    height, width = picture.shape
    result = np.zeros((height - 2, width - 2))
    for i in range(height - 2):
        for j in range(width - 2):
            result[i, j] = np.sum(picture[i : i + 3, j : j + 3] * kernel)
    return result


show(
    grey=grey,
    blur=convolve_grey(grey, blur),
    horizontal_edges=128 + convolve_grey(grey, down),
    sharpened=convolve_grey(grey, sharpen),
)

# %% [markdown]
# **Predict:** which kernel would show *vertical* edges? Turn `down` by a quarter with `down.T` and look.

# %% tags=["cover"]
show(horizontal_edges=128 + convolve_grey(grey, down), vertical_edges=128 + convolve_grey(grey, down.T))

# %% [markdown]
# In a network nobody chooses the kernels. They are parameters, and training finds them by following slopes.
# So we need the gradient of the loss with respect to every number of the kernel. And because there are more
# layers below, we also need it with respect to every pixel of the input.
#
# ## Colours, several kernels, several photos
#
# A layer of a network does not see one grey value for each pixel but several numbers, its **channels**: three
# for a photo, 64 or 128 further inside. It also has many kernels at once, each of which makes one channel of
# the result. The names that the whole library uses:
#
# | letter | meaning |
# |---|---|
# | N | number of images in the batch |
# | H, W | height and width |
# | C | channels of the input |
# | O | channels of the output, one for each kernel |
# | KH, KW | height and width of the kernel |
#
# An image batch `x` has the shape (N, H, W, C), the weights `w` have the shape (KH, KW, C, O), and every
# output channel gets a **bias** `b` (O,) added. The formula, for a kernel that stays inside the picture:
#
# $$y[n, i, j, o] = b[o] + \sum_{r=0}^{KH-1} \sum_{s=0}^{KW-1} \sum_{c=0}^{C-1} x[n, i + r, j + s, c] \cdot
# w[r, s, c, o]$$
#
# Count the letters on the right: $n, i, j, o, r, s, c$. Written out, that is **seven loops**.


# %%
def conv_seven_loops(x, w, b):
    n, h, width, c = x.shape
    kh, kw, _, o = w.shape
    oh, ow = h - kh + 1, width - kw + 1
    y = np.zeros((n, oh, ow, o))
    for image in range(n):
        for i in range(oh):
            for j in range(ow):
                for k in range(o):
                    y[image, i, j, k] = b[k]
                    for r in range(kh):
                        for s in range(kw):
                            for channel in range(c):
                                y[image, i, j, k] += x[image, i + r, j + s, channel] * w[r, s, channel, k]
    return y


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 5, 7, 3))
w = rng.normal(size=(3, 3, 3, 4))
b = rng.normal(size=4)
slow = conv_seven_loops(x, w, b)
print("x", x.shape, " w", w.shape, " y", slow.shape)

# %% [markdown]
# ## From seven loops to two
#
# Python needs about a tenth of a microsecond for each round of the innermost loop. A single layer of our
# networks has billions of rounds. But we may choose the *order* of the loops, and some orders let NumPy do
# most of them.
#
# Put the two loops over the kernel, $r$ and $s$, on the outside. What remains for one fixed $(r, s)$?
#
# $$y[n, i, j, o] \mathrel{+}= \sum_c x[n, i + r, j + s, c] \cdot w[r, s, c, o]$$
#
# - $x[n, i + r, j + s, c]$ for all $n, i, j, c$ is a *slice* of x: the picture moved by $(r, s)$.
# - $w[r, s]$ is a table of C rows and O columns.
# - The sum over $c$ for all $o$ is a **matrix product**: each pixel, a row of C numbers, times a C x O table.
#
# Five loops have become `x[:, r:r+oh, s:s+ow] @ w[r, s]`. A kernel of 3 x 3 has nine positions, called
# **taps**, so a convolution is nine matrix products of moved pictures:


# %%
def conv_two_loops(x, w, b):
    n, h, width, _ = x.shape
    kh, kw, _, o = w.shape
    oh, ow = h - kh + 1, width - kw + 1
    y = np.zeros((n, oh, ow, o)) + b
    for r in range(kh):
        for s in range(kw):
            y += x[:, r : r + oh, s : s + ow] @ w[r, s]
    return y


# %% tags=["check"]
print(f"largest difference from seven loops: {abs(conv_two_loops(x, w, b) - slow).max():.0e}")
print(f"largest difference from the library: {abs(ops.conv2d(x, w, b)[0] - slow).max():.0e}")

# %% [markdown]
# The nine moved pictures can be seen. Each is multiplied by one number of the kernel (here there is one
# channel), and the sum is the result. Three of them for the kernel `down`:

# %%
show(
    tap_0_0=128 + 0.3 * grey[0:-2, 0:-2] * -1,
    tap_0_1=128 + 0.3 * grey[0:-2, 1:-1] * -1,
    tap_2_2=128 + 0.3 * grey[2:, 2:] * 1,
    sum_of_nine=128 + convolve_grey(grey, down),
)

# %% [markdown]
# ## Stride and padding
#
# Two more numbers. With **stride** 2 the square moves two pixels at a time, and the result has half the size.
# With **padding** p the picture first gets a border of p zeros, so that a 3 x 3 kernel with p = 1 keeps the
# size. Both only change which slice is taken (and you can see the zeros: they make the dark frame around the
# small picture below): `x_padded[:, r : r + stride * oh : stride, ...]`. The number of output rows is
#
# $$OH = \left\lfloor \frac{H + 2p - KH}{\text{stride}} \right\rfloor + 1$$

# %%
each = blur[:, :, None, None] * np.eye(3)  # (3, 3, 3, 3): blurs each of the three colours on its own
half, _ = ops.conv2d(photo[None], each.astype(np.float32), stride=2, pad=1)
print("photo", photo.shape, "-> stride 2, padding 1:", half.shape)
show(photo=photo, stride_2=half[0])

# %% [markdown]
# ## The gradient: bias and kernel
#
# Now backward. We are given `dy`, the gradient of the loss with respect to every number of `y`, and look for
# three things: `dx`, `dw`, `db`. We only need the rule of lesson 2: *find every place where the number is
# used, multiply the local derivative with what arrives there, and add.*
#
# **Bias.** $b[o]$ is added to every pixel of channel $o$ of every image. The local derivative is 1 each time.
# So `db` is the sum of `dy` over $n, i, j$.
#
# **Kernel.** Look at one tap $(r, s)$. In $y \mathrel{+}= x_{rs} @ w[r, s]$, where $x_{rs}$ is the moved
# picture, the number $w[r, s, c, o]$ is used once for each pixel: it is multiplied with $x_{rs}[n, i, j, c]$
# and goes into $y[n, i, j, o]$. So
#
# $$dw[r, s, c, o] = \sum_{n, i, j} x_{rs}[n, i, j, c] \cdot dy[n, i, j, o]$$
#
# That is a matrix product too, of all pixels of $x_{rs}$ turned on its side with all pixels of `dy`.
#
# ## The gradient: input
#
# **Input.** In the same line, the number $x_{rs}[n, i, j, c]$ is multiplied with $w[r, s, c, o]$ for every
# $o$. What comes back to it through this tap is
#
# $$\sum_o dy[n, i, j, o] \cdot w[r, s, c, o] \quad = \quad dy \mathbin{@} w[r, s]^T$$
#
# And to which pixel of `x` does it belong? To the one that was read: forward *read the slice* that was moved
# by $(r, s)$, so backward *adds to the same slice* of `dx`. Neighbouring patches overlap, so every pixel is
# read by up to nine taps, and their contributions must be added with `+=`.


# %%
def conv_two_loops_backward(dy, x, w):
    kh, kw, c, o = w.shape
    _, oh, ow, _ = dy.shape
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for r in range(kh):
        for s in range(kw):
            seen = x[:, r : r + oh, s : s + ow]
            dw[r, s] = seen.reshape(-1, c).T @ dy.reshape(-1, o)
            dx[:, r : r + oh, s : s + ow] += dy @ w[r, s].T
    return dx, dw, dy.sum(axis=(0, 1, 2))


# %% [markdown]
# Compare with the library, and with differences: move all numbers of an array a little in a random direction,
# and see whether the sum of `y * dy` changes as the gradient says.

# %% tags=["check"]
dy = rng.normal(size=slow.shape)
gradients = conv_two_loops_backward(dy, x, w)
y, cache = ops.conv2d(x, w, b)
library = ops.conv2d_backward(dy, cache)
for name, array, mine, theirs in zip("xwb", (x, w, b), gradients, library, strict=True):
    direction = rng.normal(size=array.shape)
    h = 1e-6
    values = {"x": x, "w": w, "b": b}
    plus = np.sum(conv_two_loops(**{**values, name: array + h * direction}) * dy)
    minus = np.sum(conv_two_loops(**{**values, name: array - h * direction}) * dy)
    print(
        f"d{name}: formula {np.sum(mine * direction):10.5f}   differences {(plus - minus) / (2 * h):10.5f}"
        f"   library {np.sum(theirs * direction):10.5f}"
    )

# %% [markdown]
# ## The adjoint: a test without differences
#
# There is a second check, which is exact and quick. Without bias, a convolution is **linear**: twice the
# input gives twice the output, and the output of a sum is the sum of the outputs. Every linear operation $A$
# has a partner $A^T$, its **adjoint**, such that for *any* two arrays $u$ and $v$
#
# $$\langle A u, v \rangle = \langle u, A^T v \rangle$$
#
# where $\langle \cdot, \cdot \rangle$ means: multiply number by number and add up. For a matrix the adjoint
# is the transposed matrix. For a convolution it is exactly the map from `dy` to `dx`, because
# $dx = dy \cdot J$ and the Jacobian of a linear operation is the operation itself.

# %% tags=["check"]
u, v = rng.normal(size=x.shape), rng.normal(size=slow.shape)
left = np.sum(conv_two_loops(u, w, 0) * v)
right = np.sum(u * conv_two_loops_backward(v, u, w)[0])
print(f"<A u, v> = {left:.10f}")
print(f"<u, A'v> = {right:.10f}")

# %% [markdown]
# This adjoint is worth a name of its own: applied as a *forward* operation, it makes pictures larger. It is
# the **transposed convolution** of lesson 6.
#
# ## What a mistake looks like
#
# The most natural mistake: to use the flipped kernel, because books on signal processing define convolution
# that way. Plant it and let the checker look. (It is only wrong in `dx`; the forward pass is fine.)


# %%
def flipped_backward(dy, cache):
    x, w = cache
    dx, dw, db = conv_two_loops_backward(dy, x, w[::-1, ::-1])
    return dx, dw, db


gradcheck(lambda x, w, b: (conv_two_loops(x, w, b), (x, w)), flipped_backward, (x[:, :4, :5], w, b))

# %% [markdown]
# ## Exercise: your convolution
#
# With stride and padding, two loops, forward and backward. The file that you write here is one of the
# fourteen that will train your own network in lesson 13.
#
# Shapes, for example: x (3, 5, 7, 2), w (3, 3, 2, 4), b (4,) gives y (3, 3, 5, 4) with stride 1 and no
# padding. `b` may be `None`, then `db` is `None` too. Results have the dtype of `x`.


# %% tags=["exercise", "conv"]
def conv2d(x, w, b=None, stride=1, pad=0):
    """Convolve x (N, H, W, C) with w (KH, KW, C, O) and add b (O,). Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def conv2d_backward(dy, cache):
    """Return dx, dw, db."""
    raise NotImplementedError("not yet written")


# %%
check("conv2d", conv2d, conv2d_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("conv2d", conv2d, conv2d_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Pad first: `xp = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))`. Then both loops are as above, with a
# step in the slices. At the end of backward, take the padding off `dx`. (With pad = 0, `dx[:, pad:-pad]` is
# empty! Use `dx[:, pad : pad + h]`.)
#
# </details>
# <details><summary>Hint 2</summary>
#
# The slice of tap (r, s) is `xp[:, r : r + stride * oh : stride, s : s + stride * ow : stride]`. Forward
# reads it, backward adds to the same slice of `dxp`. `y += slice @ w[r, s]`,
# `dw[r, s] = slice.reshape(-1, c).T @ dy.reshape(-1, o)`, `dxp_slice += dy @ w[r, s].T`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def conv2d(x, w, b=None, stride=1, pad=0):
#     (n, h, width, _), (kh, kw, _, o) = x.shape, w.shape
#     xp = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
#     oh, ow = (h + 2 * pad - kh) // stride + 1, (width + 2 * pad - kw) // stride + 1
#     y = np.zeros((n, oh, ow, o), x.dtype)
#     for r in range(kh):
#         for s in range(kw):
#             y += xp[:, r : r + stride * oh : stride, s : s + stride * ow : stride] @ w[r, s]
#     return y if b is None else y + b, (xp, w, b, stride, pad, x.shape)
# ```
#
# ```python
# def conv2d_backward(dy, cache):
#     xp, w, b, stride, pad, (n, h, width, c) = cache
#     (kh, kw, _, o), (_, oh, ow, _) = w.shape, dy.shape
#     dxp, dw = np.zeros_like(xp), np.zeros_like(w)
#     for r in range(kh):
#         for s in range(kw):
#             rows, columns = slice(r, r + stride * oh, stride), slice(s, s + stride * ow, stride)
#             dw[r, s] = xp[:, rows, columns].reshape(-1, c).T @ dy.reshape(-1, o)
#             dxp[:, rows, columns] += dy @ w[r, s].T
#     dx = dxp[:, pad : pad + h, pad : pad + width]
#     return dx, dw, None if b is None else dy.sum(axis=(0, 1, 2))
# ```
#
# In `return y if b is None else y + b, (...)` the comma comes last: it returns a pair.
#
# </details>
#
# ## Reflection padding
#
# Zeros at the border are a black frame, and a painting network learns to see it. The paper pads with a mirror
# image instead: `np.pad(x, ..., mode="reflect")`. The border pixel itself is not repeated: ... 2 1 **0** 1 2
# ...

# %%
padded, cache = ops.reflect_pad2d(photo[None], 24)
zeros = np.pad(photo, ((24, 24), (24, 24), (0, 0)))
show(zeros=zeros, reflected=padded[0])

# %% [markdown]
# What is its gradient? Forward *copies* pixels near the border to several places. By the rule of lesson 2,
# the gradient of a pixel is the sum over all its copies. So backward folds the border back onto the picture
# and adds. In one dimension, with four pixels and padding 2, the places hold the pixels 2 1 0 1 2 3 2 1:

# %% tags=["check"]
places = np.pad(np.arange(4), 2, mode="reflect")
column = np.arange(1.0, 9.0)  # dy of one column of 8 pixels
folded = np.zeros(4)
np.add.at(folded, places, column)  # folded[places] += column would add only once where a place comes twice
print("places", places, " folded", folded)
_, cache = ops.reflect_pad2d(np.zeros((1, 4, 4, 1)), 2)
dy = np.zeros((1, 8, 8, 1))
dy[0, :, 5, 0] = column  # place 5 of a row holds pixel 3
print("library", ops.reflect_pad2d_backward(dy, cache)[0][0, :, 3, 0])

# %% [markdown]
# ## Exercise: reflection padding


# %% tags=["exercise", "reflect_pad"]
def reflect_pad2d(x, pad):
    """Mirror x (N, H, W, C) at its borders, `pad` pixels on each side. Returns (y, cache).

    A pad larger than the picture mirrors the mirror image again, as np.pad does.
    """
    raise NotImplementedError("not yet written")


def reflect_pad2d_backward(dy, cache):
    """Return (dx,)."""
    raise NotImplementedError("not yet written")


# %%
check("reflect_pad2d", reflect_pad2d, reflect_pad2d_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("reflect_pad2d", reflect_pad2d, reflect_pad2d_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `np.pad(np.arange(h), pad, mode="reflect")` says which row stands at each place. Forward can index with it,
# first rows, then columns.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Backward: one loop over the places of the rows, `half[:, row] += dy[:, place]`, then one over the columns.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def reflect_pad2d(x, pad):
#     rows = np.pad(np.arange(x.shape[1]), pad, mode="reflect")
#     columns = np.pad(np.arange(x.shape[2]), pad, mode="reflect")
#     return x[:, rows][:, :, columns], (x.shape, rows, columns)
#
#
# def reflect_pad2d_backward(dy, cache):
#     (n, h, w, c), rows, columns = cache
#     half = np.zeros((n, h, dy.shape[2], c), dy.dtype)
#     for place, row in enumerate(rows):
#         half[:, row] += dy[:, place]
#     dx = np.zeros((n, h, w, c), dy.dtype)
#     for place, column in enumerate(columns):
#         dx[:, :, column] += half[:, :, place]
#     return (dx,)
# ```
#
# </details>
#
# ## What you have seen
#
# - A convolution is, for each tap of its kernel, a matrix product with the moved picture. Two loops are
#   enough.
# - Backward walks through the same two loops: what forward read from `x`, backward adds to `dx`; what forward
#   multiplied, backward multiplies with the other factor.
# - `dx` is the **adjoint** of the convolution, which gives an exact test.
# - Copies in forward are sums in backward: bias, reflection padding, overlapping patches.
#
# **In the paper:** Tables 1 and 2 list the convolutions of both networks. **In the library:** `ops/conv.py`
# and `ops/padding.py` are what you have just written; `ops/fast/` computes the same numbers with fewer trips
# to memory (lesson 16).
#
# **Next:** making pictures smaller and larger inside a network.
