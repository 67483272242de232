# %% [markdown]
# # 6. Smaller and larger
#
# **After this lesson you can** make pictures smaller and larger inside a network, derive the gradient of
# both, and say where the checkerboards in so many generated pictures come from.
#
# About 50 minutes. You need lessons 2 and 5.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import check, gradcheck, layers, losses, ops, show, style_net
from tinynst.data import images
from tinynst.optim import Adam
from tinynst.samples import PHOTOS

photo = images.load(PHOTOS / "flower.jpg", size=96)[:, :96]
grey = photo.mean(axis=2)

# %% [markdown]
# ## A pattern that nobody asked for
#
# Here are three painting networks before any training. Their kernels are random. They differ in one thing
# only: how they make pictures larger on the way to the last layer. We look at a part of the result, enlarged.

# %% tags=["cover"]
untrained = {}
for way in ("transpose", "nearest", "smooth"):
    net = style_net(width=8, upsample=way, padding="each", seed=3)
    untrained[way] = net.forward(photo[None])[0, 28:68, 28:68]
show(photo=photo[28:68, 28:68], **untrained)

# %% [markdown]
# The first one shows a grid: a **checkerboard**. By the end of this lesson you will know why, and what
# training can do about it.
#
# But first: why should a network make pictures smaller at all, only to enlarge them again? The painting
# network works at a quarter of the height and width, for two reasons:
#
# - **Cost.** Half the height and width is a quarter of the pixels, so a convolution with the same number of
#   channels costs a quarter.
# - **Sight.** A 3 x 3 kernel sees 3 pixels. On a picture of half the size, the same kernel covers 6 pixels of
#   the original, and at a quarter of the size 12. Wide brush strokes need wide sight.
#
# ## Smaller: stride
#
# Lesson 5 knew **stride**: with stride 2 the kernel moves two pixels at a time. That is the same as moving by
# one and throwing away every second row and column:

# %% tags=["check"]
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 9, 8, 3))
w = rng.normal(size=(3, 3, 3, 4))
every_second = ops.conv2d(x, w, pad=1)[0][:, ::2, ::2]
stride_2 = ops.conv2d(x, w, stride=2, pad=1)[0]
print(f"shape {stride_2.shape}, largest difference {np.round(abs(every_second - stride_2).max(), 9):.4f}")

# %% [markdown]
# (Only a stride does not compute what it throws away.)
#
# **Predict before you run:** a picture of stripes, one pixel black and one pixel white. What is left of it if
# one keeps every second pixel? And if one first takes the mean of each 2 x 2 square?

# %%
stripes = np.tile([0.0, 255.0], (32, 16))
show(
    stripes=stripes,
    every_second=stripes[::2, ::2],
    mean_of_squares=stripes.reshape(16, 2, 16, 2).mean((1, 3)),
)

# %% [markdown]
# All black, or all grey. Detail finer than two pixels cannot be kept at half the size, but it makes a
# difference *how* it goes. If pixels are only dropped, fine detail comes back as something that was not there
# (**aliasing**). A mean takes it away. A kernel in front of a stride can learn to be such a mean.
#
# **The gradient.** What is thrown away has no way to the loss, so its gradient is 0. Backward of "keep every
# second" is *put zeros between*. With it, the gradient of a strided convolution is the gradient of an
# ordinary one:

# %% tags=["check"]
dy = rng.normal(size=stride_2.shape)
spread = np.zeros((2, 9, 8, 4))
spread[:, ::2, ::2] = dy
in_two_steps = ops.conv2d_backward(spread, ops.conv2d(x, w, pad=1)[1])[0]
at_once = ops.conv2d_backward(dy, ops.conv2d(x, w, stride=2, pad=1)[1])[0]
print(f"largest difference {np.round(abs(in_two_steps - at_once).max(), 9):.4f}")

# %% [markdown]
# Keep in mind: *zeros between, then a convolution* (with the kernel turned round). It will come back.
#
# ## Smaller: max pooling
#
# VGG-16 does not use strides. It cuts the picture into squares of 2 x 2 and keeps the **largest** value of
# each. That is **max pooling**. There is nothing to learn in it. Look at edges after ReLU, mostly 0:

# %%
edges = np.maximum(grey[1:, :-1] - grey[:-1, :-1], 0)[:95, :95]
edges = 4 * np.pad(edges, ((0, 1), (0, 1)))
squares = edges.reshape(24, 4, 24, 4)
show(
    edges=edges,
    largest_of_4x4=squares.max((1, 3)),
    mean_of_4x4=squares.mean((1, 3)),
    every_4th=edges[::4, ::4],
)

# %% [markdown]
# The maximum says "there was such an edge *somewhere* in this square". The mean says how much on average, and
# gets pale. Dropping pixels loses some edges altogether. To recognise something, the first is what one wants:
# an ear is an ear, one pixel further left or right.
#
# ## The gradient of a maximum
#
# Take one square with the values $a, b, c, d$, and let $b$ be the largest. Then $y = b$.
#
# - If $b$ grows by a little $\epsilon$, $y$ grows by $\epsilon$: the slope is 1.
# - If $a$ grows by a little, nothing happens, as long as $a$ stays below $b$: the slope is 0.
#
# So **the winner takes it all**: `dy` goes to the place of the largest value, the other three get 0. Forward
# has to remember who won, and that is the cache.

# %% tags=["check"]
small = np.array([[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 0.0, 2.0]]).reshape(1, 2, 4, 1)
y, cache = ops.max_pool2d(small)
(dx,) = ops.max_pool2d_backward(np.array([10.0, 20.0]).reshape(1, 1, 2, 1), cache)
print("y ", y.ravel())
print("dx", dx[0, 0, :, 0])
print("  ", dx[0, 1, :, 0])

# %% [markdown]
# In the right square three values are equal. That is a kink, as in ReLU at 0, without a slope. One must
# choose *one* of them, or the gradient would count three times. The convention: the first in reading order.
# This is no rare case. After a ReLU, many squares are all 0.
#
# Where do the gradients go in a part of the photo? White: the winners of each 4 x 4 square.

# %%
pooled, cache = ops.max_pool2d(grey[None, :, :, None], 4)
(winners,) = ops.max_pool2d_backward(np.ones_like(pooled), cache)
part = slice(32, 72)
show(photo=grey[part, part], pooled=pooled[0, 8:18, 8:18, 0], winners=255 * winners[0, part, part, 0])

# %% [markdown]
# ## Exercise: max pooling
#
# Shapes, for example: x (3, 5, 7, 2) gives y (3, 2, 3, 2). A row or column that does not fill a square is
# dropped, and gets the gradient 0.


# %% tags=["exercise", "max_pool"]
def max_pool2d(x, size=2):
    """The largest of each size x size square of x (N, H, W, C). Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def max_pool2d_backward(dy, cache):
    """Return (dx,)."""
    raise NotImplementedError("not yet written")


# %%
check("max_pool2d", max_pool2d, max_pool2d_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("max_pool2d", max_pool2d, max_pool2d_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `reshape(n, rows, size, columns, size, c)` cuts a picture into squares without a loop: axes 2 and 4 are the
# place in the square. `argmax` gives the first of several equal values.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Bring both axes to the end with `transpose(0, 1, 3, 5, 2, 4)` and make them one axis of size * size. Then
# `argmax(axis=4)` is the winner. Backward: `np.arange(size * size) == winner[..., None]` is True at the
# winner only. Multiply with `dy[..., None]`, and go back the same way: reshape,
# `transpose(0, 1, 4, 2, 5, 3)`, reshape.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def max_pool2d(x, size=2):
#     n, h, w, c = x.shape
#     rows, columns = h // size, w // size
#     squares = x[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, c)
#     squares = squares.transpose(0, 1, 3, 5, 2, 4).reshape(n, rows, columns, c, size * size)
#     return squares.max(axis=4), (squares.argmax(axis=4), size, x.shape)
#
#
# def max_pool2d_backward(dy, cache):
#     winner, size, shape = cache
#     n, rows, columns, c = dy.shape
#     squares = dy[..., None] * (np.arange(size * size) == winner[..., None])
#     squares = squares.reshape(n, rows, columns, c, size, size).transpose(0, 1, 4, 2, 5, 3)
#     dx = np.zeros(shape, dy.dtype)
#     dx[:, : rows * size, : columns * size] = squares.reshape(n, rows * size, columns * size, c)
#     return (dx,)
# ```
#
# </details>
#
# What if *all* equal values get the gradient? With random numbers nobody would notice, since no two are
# equal. The check above therefore also tries equal ones.
#
# ## Larger: turn the convolution round
#
# Now the way back. A convolution with stride 2 makes 3 numbers from 6. Is there a convolution that makes 6
# from 3?
#
# Take one dimension, a kernel of three weights $(a, b, c)$, stride 2, and one zero in front as padding. Every
# output is a sum of products, so all of it is one matrix:

# %%
kernel = np.array([1.0, 2.0, 3.0])  # a, b, c
A = np.zeros((3, 6))
for i in range(3):
    for r in range(3):
        j = 2 * i + r - 1  # the place that tap r of output i reads; -1 for the padding
        if 0 <= j < 6:
            A[i, j] = kernel[r]

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for panel, matrix, title in zip(
    axes, (A, A.T), ("A: 6 numbers to 3", "A transposed: 3 numbers to 6"), strict=True
):
    panel.imshow(matrix, cmap="Blues", vmax=4)
    for (row, column), value in np.ndenumerate(matrix):
        if value:
            panel.text(column, row, " abc"[int(value)], ha="center", va="center", fontsize=13)
    panel.set_title(title)
    panel.set_xlabel("input")
    panel.set_ylabel("output")
    panel.set_yticks(range(len(matrix)))
plt.show()

# %% [markdown]
# Each row of $A$ is the kernel, two places further right each time. The **transposed** matrix goes the other
# way, from 3 numbers to 6. That is the **transposed convolution**. It does not undo the convolution (nobody
# could make 6 numbers from 3 without loss). It only goes back along the same ways, with the same weights.
#
# Read a *column* of the right matrix: each input number **paints** the kernel $(a, b, c)$, times its value,
# on the output. The next one paints two places further. Where two paintings overlap, they add:


# %%
def paint_1d(v, kernel, stride=2):
    """Each v[i] paints the kernel at stride * i. No padding."""
    y = np.zeros(stride * (len(v) - 1) + len(kernel))
    for i, value in enumerate(v):
        y[stride * i : stride * i + len(kernel)] += value * kernel
    return y


v = np.array([1.0, 10.0, 100.0])
print("painted:       ", paint_1d(v, kernel))
print("A transposed v:", A.T @ v, "(without the first, which lies in the padding)")

# %% [markdown]
# ## It is the adjoint: a derivation
#
# Lesson 5 promised: the map from `dy` to `dx` of a convolution, its adjoint, is worth a name of its own. Let
# us derive that painting is this adjoint, without a matrix. The convolution, in one dimension with stride
# $t$:
#
# $$(A u)_i = \sum_r u_{t i + r}\, w_r$$
#
# Multiply number by number with any $v$ and add up:
#
# $$\langle A u, v \rangle = \sum_i v_i \sum_r u_{t i + r}\, w_r = \sum_i \sum_r u_{t i + r} \cdot (w_r\,
# v_i)$$
#
# Now sort this double sum by *which* $u_j$ stands in it, where $j = t i + r$:
#
# $$\langle A u, v \rangle = \sum_j u_j \cdot \Big( \sum_{i, r:\; t i + r = j} w_r\, v_i \Big)$$
#
# This has the form $\langle u, \text{something} \rangle$, for every $u$. So the bracket is $(A^T v)_j$. And
# what does it say? For each $i$ and each $r$, add $w_r v_i$ at the place $t i + r$. That is painting.
#
# In two dimensions with channels nothing changes but the letters: the tap $(r, s)$ of input pixel $(i, j)$
# paints at $(t i + r, t j + s)$, and instead of a product of two numbers, there is a matrix product from the
# input's channels to the output's:
#
# $$y[n,\, t i + r,\, t j + s,\, :] \mathrel{+}= x[n, i, j, :] \mathbin{@} w[r, s]^T$$
#
# The kernel has the shape (KH, KW, OUT, IN): that of the convolution that would go *back*, from OUT to IN
# channels.


# %%
def paint(x, w, stride):
    """Transposed convolution of x (N, H, W, IN) with w (KH, KW, OUT, IN), without padding."""
    (n, h, width, _), (kh, kw, out, _) = x.shape, w.shape
    y = np.zeros((n, stride * (h - 1) + kh, stride * (width - 1) + kw, out))
    for r in range(kh):
        for s in range(kw):
            y[:, r : r + stride * h : stride, s : s + stride * width : stride] += x @ w[r, s].T
    return y


# %% [markdown]
# Two loops, as in lesson 5, and the same slices. There they stood on the right, under the name `seen`. Test
# it with random arrays: $\langle A u, v \rangle = \langle u, A^T v \rangle$.

# %% tags=["check"]
for stride in (1, 2, 3):
    v = rng.normal(size=(2, 4, 5, 4))
    u = rng.normal(size=paint(v, w, stride).shape)
    left = np.sum(ops.conv2d(u, w, stride=stride)[0] * v)
    right = np.sum(u * paint(v, w, stride))
    library = np.sum(u * ops.conv_transpose2d(v, w, stride=stride, pad=0, output_pad=0)[0])
    print(f"stride {stride}: <A u, v> = {left:.8f}   <u, A'v> = {right:.8f}   library {library:.8f}")

# %% [markdown]
# One such test with random numbers checks every single weight: if one were wrong, the two sides would differ
# (but for a miracle).
#
# ("Zeros between, then a convolution" is the same operation, seen from the output. The paper calls it a
# convolution with stride 1/2.)
#
# **Two numbers for the size.** `pad` crops that many pixels on each side, because the convolution that goes
# back would add them. And `output_pad`: a 3 x 3 convolution with stride 2 and padding 1 makes 4 pixels from
# 7, and also from 8. On the way back one has to say which:

# %% tags=["check"]
for size in (7, 8):
    print(size, "->", ops.conv2d(np.zeros((1, size, size, 3)), w, stride=2, pad=1)[0].shape[1])
for output_pad in (0, 1):
    y, _ = ops.conv_transpose2d(np.zeros((1, 4, 4, 4)), w, stride=2, pad=1, output_pad=output_pad)
    print(f"4 -> {y.shape[1]} with output_pad={output_pad}")

# %% [markdown]
# ## Its gradients
#
# There is a shorter way than to derive them again.
#
# - **dx.** The transposed convolution is $A^T$. Its backward is the adjoint of that, $(A^T)^T = A$: *the
#   convolution*. Each is the other's backward.
# - **dw.** In `y[slice] += x @ w[r, s].T`, the number $w[r, s, c, o]$ multiplies $x[\dots, o]$ and goes into
#   $y[\dots, c]$, at every pixel. So
#   $dw[r, s, c, o] = \sum dy_{\text{slice}}[n, i, j, c] \cdot x[n, i, j, o]$: one matrix product for each
#   tap.
# - **db.** A bias is added everywhere: the sum of `dy`.


# %%
def paint_backward(dy, x, w, stride):
    (_, h, width, _), (kh, kw, c, o) = x.shape, w.shape
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for r in range(kh):
        for s in range(kw):
            painted = dy[:, r : r + stride * h : stride, s : s + stride * width : stride]
            dx += painted @ w[r, s]
            dw[r, s] = painted.reshape(-1, c).T @ x.reshape(-1, o)
    return dx, dw


# %% tags=["check"]
x = rng.normal(size=(2, 4, 5, 4))
dy = rng.normal(size=paint(x, w, 2).shape)
mine = paint_backward(dy, x, w, 2)
theirs = ops.conv_transpose2d_backward(dy, ops.conv_transpose2d(x, w, pad=0, output_pad=0)[1])
values, h = {"x": x, "w": w}, 1e-6
for k, name in enumerate(values):
    direction = rng.normal(size=values[name].shape)
    plus = np.sum(dy * paint(**{**values, name: values[name] + h * direction}, stride=2))
    minus = np.sum(dy * paint(**{**values, name: values[name] - h * direction}, stride=2))
    print(
        f"d{name}: formula {np.sum(mine[k] * direction):10.5f}   differences {(plus - minus) / (2 * h):10.5f}"
        f"   library {np.sum(theirs[k] * direction):10.5f}"
    )

# %% [markdown]
# What does the checker say if backward uses `=` where paintings overlap? (Lesson 2: where paths meet, slopes
# add.)


# %%
def overwriting(dy, cache):
    x, w = cache
    _, dw = paint_backward(dy, x, w, 2)
    (_, h, width, _), (kh, kw, _, _) = x.shape, w.shape
    for r in range(kh):
        for s in range(kw):
            dx = dy[:, r : r + 2 * h : 2, s : s + 2 * width : 2] @ w[r, s]  # should be dx +=
    return dx, dw


gradcheck(lambda x, w: (paint(x, w, 2), (x, w)), overwriting, (x[:, :3, :4], w))

# %% [markdown]
# ## Exercise: transposed convolution
#
# Shapes, for example: x (3, 5, 7, 2), w (3, 3, 4, 2), b (4,) gives y (3, 10, 14, 4) with stride 2, pad 1,
# output_pad 1. In general OH = (H - 1) * stride - 2 * pad + KH + output_pad. `b` may be `None`, then `db` is
# `None` too.


# %% tags=["exercise", "conv_transpose"]
def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    """Transposed convolution of x (N, H, W, IN) with w (KH, KW, OUT, IN), plus b (OUT,).

    Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def conv_transpose2d_backward(dy, cache):
    """Return dx, dw, db."""
    raise NotImplementedError("not yet written")


# %%
check("conv_transpose2d", conv_transpose2d, conv_transpose2d_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("conv_transpose2d", conv_transpose2d, conv_transpose2d_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Paint on a picture that has room for everything, `output_pad` rows and columns more at the bottom and right.
# Then cut `pad` from each side.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The large picture has (H - 1) * stride + KH + output_pad rows. Backward: put `dy` where the cut was, in a
# large picture of zeros, and go through the loops of `paint_backward`. (With pad = 0, `[pad:-pad]` is empty:
# write `[pad : pad + height]`.)
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
#     (n, h, width, _), (kh, kw, out, _) = x.shape, w.shape
#     rows, columns = (h - 1) * stride + kh + output_pad, (width - 1) * stride + kw + output_pad
#     full = np.zeros((n, rows, columns, out), x.dtype)
#     for r in range(kh):
#         for s in range(kw):
#             full[:, r : r + stride * h : stride, s : s + stride * width : stride] += x @ w[r, s].T
#     y = full[:, pad : rows - pad, pad : columns - pad]
#     return y if b is None else y + b, (x, w, b, stride, pad, full.shape)
#
#
# def conv_transpose2d_backward(dy, cache):
#     x, w, b, stride, pad, shape = cache
#     (_, h, width, o), (kh, kw, c, _) = x.shape, w.shape
#     full = np.zeros(shape, dy.dtype)
#     full[:, pad : pad + dy.shape[1], pad : pad + dy.shape[2]] = dy
#     dx, dw = np.zeros_like(x), np.zeros_like(w)
#     for r in range(kh):
#         for s in range(kw):
#             part = full[:, r : r + stride * h : stride, s : s + stride * width : stride]
#             dx += part @ w[r, s]
#             dw[r, s] = part.reshape(-1, c).T @ x.reshape(-1, o)
#     return dx, dw, None if b is None else dy.sum(axis=(0, 1, 2))
# ```
#
# </details>
#
# ## Checkerboards: count the brushes
#
# Now the grid of the first picture. Paint with a kernel of ones on an input of ones, so that each output
# pixel shows *how often it was painted*.
#
# **Predict before you run:** a kernel of 3, stride 2, in one dimension. How often is each pixel painted?

# %% tags=["check"]
for size in (2, 3, 4, 5):
    print(f"kernel {size}, stride 2:", paint_1d(np.ones(6), np.ones(size)).astype(int))

# %% [markdown]
# With a kernel of 3: once, twice, once, twice. The paintings overlap **unevenly**, because 3 is not a
# multiple of 2. In two dimensions the counts multiply, and there are pixels that are painted once, twice, and
# four times:

# %%
counts = {}
for size in (3, 4):
    each = paint(np.ones((1, 10, 10, 1)), np.ones((size, size, 1, 1)), 2)[0, 2:-2, 2:-2, 0]
    counts[f"kernel {size} x {size}, stride 2"] = 60 * each
show(**counts)

# %% [markdown]
# A kernel of 4 is even *if all its weights are equal*. They are not. Look at it from the output: pixels in
# even rows and columns see other taps of the kernel than the pixels beside them. Output pixels come in
# $2 \times 2 = 4$ kinds, and each kind has *a convolution of its own*. If the input is constant, each kind
# shows the sum of its own taps, and four different sums repeated everywhere are a grid:

# %% tags=["check"]
for name, k in (("random 3 x 3", rng.normal(size=(3, 3))), ("random 4 x 4", rng.normal(size=(4, 4)))):
    y = paint(np.ones((1, 6, 6, 1)), k[:, :, None, None], 2)[0, 4:6, 4:6, 0]
    print(f"{name}, constant input: {np.round(y.ravel(), 3)}")
linear = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
y = paint(np.ones((1, 6, 6, 1)), linear[:, :, None, None], 2)[0, 4:6, 4:6, 0]
print(f"linear weights, constant input: {y.ravel()}")

# %% [markdown]
# So a transposed convolution *can* be even: with the weights of linear interpolation all four sums are equal.
# But nothing makes them equal. Training has to find equal sums, which it does only nearly, and the eye sees
# the rest on every smooth surface.
#
# ## Nearest enlargement: fixed rule first, then learn
#
# The cure is simple: enlarge by a fixed rule, *then* use an ordinary convolution. The fixed rule that costs
# nothing: every pixel becomes a square of four equal pixels, **nearest enlargement**. Afterwards all output
# pixels are seen by the same kernel, and a constant input stays constant, whatever the weights.
#
# Its gradient is a rule of lesson 2. A value is copied four times, so its gradient is the sum of the four:

# %% tags=["check"]
y, cache = ops.upsample_nearest(np.array([[1.0, 2.0]]).reshape(1, 1, 2, 1))
(dx,) = ops.upsample_nearest_backward(np.arange(8.0).reshape(1, 2, 4, 1), cache)
print("y ", *y[0, :, :, 0])
print("dx", dx.ravel(), "from dy", *np.arange(8).reshape(2, 4))

# %% [markdown]
# Does training not take the grid away? Try. Three tiny networks learn to enlarge photos to twice the size:
# one convolution to 16 channels, ReLU, and then one of the three ways to three colours. (`Adam` is descent
# with a step of its own for each number; lesson 12 derives it.) After each step we enlarge a picture that is
# *constant*, and measure in grey levels how far the four kinds of output pixels are apart.

# %%
files = sorted(PHOTOS.glob("*.jpg"))
large = np.stack([images.load(file, size=64)[:64, :64] for file in files]) / np.float32(128) - 1
small = large.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4))  # the mean of each 2 x 2 square
constant = np.full((1, 16, 16, 3), 0.3, np.float32)


def enlarger(way, seed=1):
    random = np.random.default_rng(seed)
    conv = {"conv": layers.Conv(3, 16, 3, 1, 1, bias=True, rng=random), "relu": layers.ReLU()}
    if way == "transpose":
        return layers.Sequential({**conv, "up": layers.ConvTranspose(16, 3, rng=random)})
    rule = layers.Upsample(2) if way == "nearest" else layers.UpsampleSmooth()
    return layers.Sequential({**conv, way: rule, "up": layers.Conv(16, 3, 3, 1, 1, rng=random)})


def train(way, steps=300):
    net, grid, pictures = enlarger(way), [], {}
    adam, order = Adam(net.parameters(), lr=3e-3), np.random.default_rng(2)
    for step in range(1, steps + 1):
        batch = order.choice(len(files), 4, replace=False)
        y = net.forward(small[batch], training=True)
        net.backward(losses.pixel_loss(y, large[batch])[1])
        adam.step(net.gradients())
        flat = 128 * net.forward(constant)[0, 12:20, 12:20]
        grid.append(flat[:2, :2].std((0, 1)).mean())
        if step in (20, 300):
            flower = images.load(PHOTOS / "flower.jpg", size=48)[8:40, 8:40] / np.float32(128) - 1
            pictures[f"{way}, step {step}"] = 128 * net.forward(flower[None])[0] + 128
    return grid, pictures


trained = {way: train(way) for way in ("transpose", "nearest", "smooth")}

# %%
figure, axes = plt.subplots(figsize=(7, 3.2))
for way, (grid, _) in trained.items():
    axes.plot(range(1, 301), grid, "--" if way == "smooth" else "-", label=way)
axes.set_ylim(-1, 20)
axes.set_xlabel("step")
axes.set_ylabel("grid on a constant picture\n(grey levels)")
axes.legend()
plt.show()

# %%
show(
    **{f"{way}, step {k}": trained[way][1][f"{way}, step {k}"] for k in (20, 300) for way in trained},
    columns=3,
)

# %% [markdown]
# The transposed convolution starts with a grid, makes it *worse* at first, and is not quite rid of it at the
# end: look at the dark ground. The other two have none, at any step, whatever their weights. (How to do it
# large: replace 64 by 256 and 32 by 128 where `large` and `small` are made.) The price: the convolution now
# works on the *large* picture, with 9 products for each output pixel where painting needs only 9/4.
#
# ## What nearest enlargement leaves
#
# Look closely, and a texture of small squares may remain. Take the finest texture that the small picture can
# hold, $+1, -1, +1, -1$. Enlarged, it becomes $+1, +1, -1, -1$: a hard square wave, which the ReLU behind it
# turns into threads two and four pixels apart.
#
# **Smooth enlargement** mixes every new pixel from five old ones in each direction, with these weights (in
# 64ths) for the first and the second of each two new pixels:
#
# $$5, 20, 26, 12, 1 \qquad \text{and} \qquad 1, 12, 26, 20, 5$$
#
# Both add up to 64, so that a constant stays a constant. **Predict before you run:** what becomes of
# $+1, -1, +1, -1$? Add with alternating signs: $5 - 20 + 26 - 12 + 1$.

# %% tags=["check"]
alternating = np.tile([1.0, -1.0], 8)
rows = np.tile(alternating, (16, 1)).reshape(1, 16, 16, 1)
print("nearest:", ops.upsample_nearest(rows)[0][0, 12, 12:20, 0])
print("smooth: ", ops.upsample_smooth(rows)[0][0, 12, 12:20, 0] + 0.0)
print("smooth, constant:", ops.upsample_smooth(abs(rows))[0][0, 12, 12:20, 0])

# %% [markdown]
# Exactly 0: the texture that lies on the grid is taken out. The price is softness, as in the flower above,
# which matters less in a painting. Between these extremes:

# %%
positions = np.arange(32)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
for panel, period in zip(axes, (16, 4, 2), strict=True):
    wave = np.cos(2 * np.pi * np.arange(16) / period)[None, None, :, None]
    panel.plot(positions, ops.upsample_nearest(wave)[0][0, 0, :, 0], drawstyle="steps-mid", label="nearest")
    panel.plot(positions, ops.upsample_smooth(wave)[0][0, 0, :, 0], label="smooth")
    panel.set_title(f"a wave of {period} small pixels")
    panel.set_xlabel("large pixel")
axes[0].set_ylabel("value")
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# Slow waves come through both; through the smooth one, faster waves come weaker and the fastest not at all
# (but at the ends of the row, where the edge pixel is repeated).
#
# Its gradient? Enlargement is linear, so it is the adjoint: each new pixel sends its gradient back to those
# it was made of, with the same weights. The adjoint test again:

# %% tags=["check"]
u, v = rng.normal(size=(1, 6, 7, 2)), rng.normal(size=(1, 12, 14, 2))
y, cache = ops.upsample_smooth(u)
(back,) = ops.upsample_smooth_backward(v, cache)
print(f"<A u, v> = {np.sum(y * v):.8f}   <u, A'v> = {np.sum(u * back):.8f}")

# %% [markdown]
# ## The same grid, backward
#
# The backward of a strided convolution *is* a transposed convolution. So uneven overlap is in the
# **gradients**, too. Here every output pixel of a strided 3 x 3 convolution asks for the same (`dy` is 1
# everywhere). What arrives at the input picture?

# %%
canvas = np.zeros((1, 24, 24, 1))
arrives = {}
for size in (3, 4):
    y, cache = ops.conv2d(canvas, np.ones((size, size, 1, 1)), stride=2, pad=1)
    arrives[f"dx, kernel {size}, stride 2"] = 60 * ops.conv2d_backward(np.ones_like(y), cache)[0][0, :, :, 0]
show(**arrives)

# %% [markdown]
# Max pooling is no better: one pixel of four gets all. Whoever changes *pixels* by such gradients, as lessons
# 8 and 10 do, finds traces of it in the picture. A loss on neighbouring pixels (total variation) smooths
# them.
#
# ## What you have seen
#
# - **Stride** keeps every second result; backward puts zeros between. **Max pooling** keeps the largest;
#   backward gives everything to the winner.
# - A **transposed convolution** is the adjoint of a convolution: each pixel paints the kernel. Each of the
#   two is the other's backward.
# - **Checkerboards** come from uneven overlap: neighbours are made with different taps. **Nearest**
#   enlargement and a convolution treat all pixels alike. **Smooth** enlargement also takes out the finest
#   texture of the small grid.
#
# **In the paper:** Tables 1 and 2 of the supplement, "stride 2" and "stride 1/2". **In the library:**
# `ops/pooling.py`, `ops/conv_transpose.py`, `ops/resampling.py`. `style_net(upsample=...)` chooses among
# "transpose" (the paper), "nearest" and "smooth" (the gallery that ships).
#
# **Next:** the layer behind every convolution, which takes away contrast and gives it back.
