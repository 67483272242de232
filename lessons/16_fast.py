# %% [markdown]
# # 16. Fast
#
# **After this lesson you can** say where the time of a network goes, and make a convolution ten thousand
# times faster, step by step, with the same result.
#
# Nothing new is computed in this lesson. Everything is only computed faster, with NumPy alone. About 60
# minutes. You need lesson 5 (convolution, the adjoint).

# %%
import itertools
import os
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

from tinynst import VGG16, load_style, ops, show, stylize
from tinynst.data import images
from tinynst.ops.fast import winograd
from tinynst.samples import PHOTOS

os.environ["TINYNST_THREADS"] = "1"  # the library on one core: we compare methods, not machines
one_core = threadpool_limits(1, "blas")  # and NumPy's products


def seconds(function, *arguments, least=0.3):
    """The seconds that one call takes, the best of many: what disturbs a call makes it longer, never shorter.

    Only this thread's own work counts, not what other programs do on the same core.
    """
    best, total = np.inf, 0.0
    while total < least:
        begin = time.thread_time()
        function(*arguments)
        best = min(best, time.thread_time() - begin)
        total += time.thread_time() - begin
    return best


photo = images.load(PHOTOS / "neuschwanstein.jpg", size=256)[:, 64:320]
net = load_style("starry_night_single")
show(photo=photo, painted=stylize(net, photo))
print(f"{seconds(stylize, net, photo):.2f} seconds of one core")

# %% [markdown]
# How long would it take with the seven loops of lesson 5? Let us not wait for it, but compute. A **product**
# here is one multiplication and one addition, the body of the innermost loop. Lesson 11 counted them: 12.8
# billion for this picture. One product takes


# %%
def seven_loops(x, w):
    """The convolution of x (N, H, W, C) with w (KH, KW, C, O), without padding."""
    n, h, width, c = x.shape
    kh, kw, _, o = w.shape
    y = np.zeros((n, h - kh + 1, width - kw + 1, o), x.dtype)
    for image in range(n):
        for i in range(h - kh + 1):
            for j in range(width - kw + 1):
                for k in range(o):
                    for r in range(kh):
                        for s in range(kw):
                            for channel in range(c):
                                y[image, i, j, k] += x[image, i + r, j + s, channel] * w[r, s, channel, k]
    return y


rng = np.random.default_rng(0)
x = rng.normal(size=(1, 130, 130, 64)).astype(np.float32)  # features of a photo, with a border of one pixel
w = (rng.normal(size=(3, 3, 64, 64)) / 24).astype(np.float32)

products = 128 * 128 * 3 * 3 * 64 * 64
one_product = seconds(seven_loops, x[:, :4, :4], w[..., :8]) / (2 * 2 * 3 * 3 * 64 * 8)
print(f"{1e6 * one_product:.2f} microseconds, so this picture takes {12.75e9 * one_product / 3600:.1f} hours")

# %% [markdown]
# ## Where does the time go?
#
# Before you make anything faster, measure: that is **profiling**. We put a clock around every layer of the
# painting network, and of VGG-16, which looks at the result in training, forward and backward.
#
# **Predict before you run:** how much of the time is convolution?


# %%
def leaves(layers, prefix=""):
    """{name: layer}, with the layers inside the residual blocks."""
    found = {}
    for name, layer in layers.items():
        inner = getattr(layer, "layers", None)
        found |= leaves(inner, f"{name}.") if inner else {prefix + name: layer}
    return found


def clocked(layers, clock):
    """From now on each layer adds its seconds, forward and backward, to `clock`."""

    def timed(function, name, way):
        def call(*arguments, **options):
            begin = time.thread_time()
            result = function(*arguments, **options)
            clock[name][way] += time.thread_time() - begin
            return result

        return call

    for name, layer in leaves(layers).items():
        clock[name] = [0.0, 0.0]
        layer.forward, layer.backward = timed(layer.forward, name, 0), timed(layer.backward, name, 1)


vgg, small = VGG16.load(), photo[None, :128, :128]


def step():
    y = net.forward(small, training=True)
    features = vgg.forward(y)
    net.backward(vgg.backward({name: f / 1e6 for name, f in features.items()}))


step()  # the first one prepares
clocks = {"painting network": {}, "VGG-16": {}}
clocked(net.layers.layers, clocks["painting network"])
clocked(vgg.layers.layers, clocks["VGG-16"])
step()

# %%
is_convolution = {
    name: "Conv" in type(layer).__name__
    for name, layer in {**leaves(net.layers.layers), **leaves(vgg.layers.layers)}.items()
}
figure, panels = plt.subplots(1, 2, figsize=(9, 6.5), layout="constrained")
for axes, (title, clock) in zip(panels, clocks.items(), strict=True):
    clock = {name: times for name, times in clock.items() if sum(times)}
    forward, backward = 1000 * np.array(list(clock.values())).T
    colours = ["C0" if is_convolution[name] else "C1" for name in clock]
    axes.barh(list(clock), forward, color=colours)
    axes.barh(list(clock), backward, left=forward, color=colours, alpha=0.5)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("milliseconds, forward (full) and backward (pale)")
    axes.set_title(f"{title}: blue is convolution")
plt.show()

spent = {name: sum(times) for clock in clocks.values() for name, times in clock.items()}
share = sum(t for name, t in spent.items() if is_convolution[name]) / sum(spent.values())
print(f"convolution: {share:.0%} of {1000 * sum(spent.values()):.0f} ms")

# %% [markdown]
# Nearly everything, and that is *after* the convolutions have been made fast. So we work on convolution and
# leave the rest alone. (`tinynst bench --layers` prints this for a whole training step at 256 x 256.)
#
# ## How fast can it be?
#
# A **GFLOP/s** is a billion multiplications or additions in a second. The best that a core can do is a large
# product of matrices: NumPy hands it to a library (OpenBLAS), which has been tuned for each processor for
# decades. We keep it on one core for now, to compare methods and not machines.

# %%
a = rng.normal(size=(1024, 1024)).astype(np.float32)
peak = 2 * 1024**3 / seconds(np.matmul, a, a) / 1e9
print(
    f"a product of two matrices of 1024 x 1024: {peak:.0f} GFLOP/s, {2000 / peak:.0f} picoseconds a product"
)
print(f"one product in seven loops: {1e12 * one_product:,.0f} picoseconds")

# %% [markdown]
# That is the room that we have: a factor of more than ten thousand. Here is the layer that we take through
# this lesson, a typical one of VGG-16: 64 channels in, 64 out, 128 x 128 pixels, 600 million products.
#
# ## Two loops
#
# Lesson 5 turned five of the seven loops into a matrix product for each place in the kernel, each **tap**.
# As a step between we take a loop over the *pixels*: patch by patch, times the kernel.


# %%
def loop_over_pixels(x, w):
    n, h, width, _ = x.shape
    kh, kw, _, o = w.shape
    y = np.zeros((n, h - kh + 1, width - kw + 1, o), x.dtype)
    flat = w.reshape(-1, o)
    for i in range(h - kh + 1):
        for j in range(width - kw + 1):
            y[:, i, j] = x[:, i : i + kh, j : j + kw].reshape(n, -1) @ flat
    return y


def two_loops(x, w):
    n, h, width, _ = x.shape
    kh, kw, _, o = w.shape
    oh, ow = h - kh + 1, width - kw + 1
    y = np.zeros((n, oh, ow, o), x.dtype)
    for r in range(kh):
        for s in range(kw):
            y += x[:, r : r + oh, s : s + ow] @ w[r, s]
    return y


truth = two_loops(x.astype(float), w.astype(float))
results = {"seven loops": one_product * products}


def race(name, function):
    """Check the function on our layer, then take its time."""
    y = function(x, w)
    error = abs(y - truth).max() / abs(truth).max()
    assert error < 1e-4, f"{name} is wrong: it is off by {error:.0e}"
    results[name] = seconds(function, x, w)
    print(f"{name}: {1000 * results[name]:.1f} ms, {2e-9 * products / results[name]:.0f} GFLOP/s")


race("loop over pixels", loop_over_pixels)
race("two loops", two_loops)

# %% [markdown]
# Both compute the same products, and Python runs 16,384 rounds in the one and 9 in the other. **Rule one: no
# Python loop over pixels.** In a loop over pixels each round costs some microseconds for Python and NumPy,
# and one patch is too little work for that.
#
# ## One product: patches @ weights
#
# If nine products are better than 16,384, is one better than nine? Write all patches as rows of one large
# matrix. Each row holds $3 \cdot 3 \cdot 64 = 576$ numbers; then the whole layer is a single product with
# the kernel as a table of 576 x 64. (Elsewhere this is called *im2col*.)
#
# **Predict before you run:** the table of patches is nine times as large as `x`. Is it worth it?


# %%
def patches(x, kh, kw):
    """(N, OH, OW, KH, KW, C): the pixels that each output pixel sees."""
    n, h, width, c = x.shape
    oh, ow = h - kh + 1, width - kw + 1
    table = np.empty((n, oh, ow, kh, kw, c), x.dtype)
    for r in range(kh):
        for s in range(kw):
            table[:, :, :, r, s] = x[:, r : r + oh, s : s + ow]
    return table


def one_large_product(x, w):
    kh, kw, c, o = w.shape
    table = patches(x, kh, kw)
    return (table.reshape(-1, kh * kw * c) @ w.reshape(-1, o)).reshape(*table.shape[:3], o)


race("patches @ weights", one_large_product)

# %% [markdown]
# No better, although a single large product runs nearer to the peak than nine. To see why, we must look at
# where numbers live.

# %% [markdown]
# ## The cache
#
# A core computes much faster than main memory delivers. So it keeps what it has used last close by, in
# **caches**: some ten kilobytes, then about a megabyte, then some megabytes that all cores share. Each is
# several times slower than the one before, and main memory is slowest.
#
# An experiment. Sixteen million numbers are multiplied or added to eight times. Either the whole array takes
# the first step, then the second ..., or a block of it takes all eight steps, then the next block. The
# arithmetic is the same.


# %%
def eight_steps(numbers, block):
    for start in range(0, len(numbers), block):
        part = numbers[start : start + block]
        for _ in range(4):
            part *= np.float32(0.5)
            part += np.float32(1)


numbers = np.ones(2**24, np.float32)
sizes = 2 ** np.arange(10, 25, 2)
per_number = [1e9 * seconds(eight_steps, numbers, size, least=0.2) / len(numbers) for size in sizes]

figure, axes = plt.subplots(figsize=(7, 3.8))
axes.loglog(4 * sizes / 1024, per_number, "o-")
axes.set_xlabel("size of a block in KiB (the array: 65,536 KiB)")
axes.set_ylabel("nanoseconds for 8 steps on a number")
axes.set_ylim(0.5 * min(per_number), 2 * max(per_number))
plt.show()

# %% [markdown]
# On the left the blocks are so small that Python's call costs more than the work. On the right each step
# waits for memory. In between lies a wide valley: large enough for Python, small enough for the cache.
#
# **Rule two: work in blocks that stay in the cache, and do everything with a block before you go on.** For
# the convolution: cut the output into bands of some rows, and make only the patches of one band at a time.


# %%
def patches_in_blocks(x, w, rows=4):
    kh, kw, _, o = w.shape
    n, h, width, _ = x.shape
    y = np.empty((n, h - kh + 1, width - kw + 1, o), x.dtype)
    for top in range(0, y.shape[1], rows):
        y[:, top : top + rows] = one_large_product(x[:, top : top + rows + kh - 1], w)
    return y


race("patches in blocks", patches_in_blocks)

# %% [markdown]
# Now the patches win, by a little. Two loops add to the whole of `y` nine times; here each number of the
# result is written once. The gain is small because with 64 channels the products are most of the work. (With
# 3 channels it is large. That will be your exercise.)
#
# ## Threads
#
# A **thread** is a line of work; each core can run one. Python has a lock that lets only one thread run
# Python at a time, but NumPy gives it back while it computes. So large pieces of NumPy's work do run side by
# side. The bands do not depend on each other: give each core its share of them, and let each say how long it
# worked.


# %%
def on_all_cores(x, w, work=patches_in_blocks):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    edges = np.linspace(0, x.shape[1] - 2, cores + 1).astype(int)
    bands = [x[:, top : bottom + 2] for top, bottom in itertools.pairwise(edges)]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(lambda band: work(band, w), bands))


y = np.concatenate(on_all_cores(x, w), axis=1)
print("the same result:", abs(y - truth).max() < 1e-4)
shares = on_all_cores(x, w, work=lambda band, w: seconds(patches_in_blocks, band, w))
print("one core:", f"{1000 * results['patches in blocks']:.1f} ms;", f"{len(shares)} cores:", end=" ")
print(", ".join(f"{1000 * share:.1f}" for share in shares), "ms at the same time")

# %% [markdown]
# On free cores the clock on the wall then shows 1.6 to 1.9 times the speed with two of them, and never quite
# 2: they share the memory, one waits for the other at the end, and between two calls of NumPy only one of
# them can have Python's lock.
#
# **Rule three: share large pieces among the cores, few calls in each.** The library's `parallel.run` does
# that for every operation. Core $k$ works on the same part of the picture in each layer, since its cache
# still holds what it wrote there.

# %% [markdown]
# ## Fewer multiplications
#
# We are not far from the peak of this core. To become faster still, we must *do less*. That is possible, and
# it is the most beautiful trick of this lesson. It is due to Shmuel Winograd (1980); Lavin and Gray brought
# it to networks in 2015.
#
# Take one dimension: four numbers $x_0 \dots x_3$, a kernel of three, $w_0, w_1, w_2$, and two outputs:
#
# $$y_0 = x_0 w_0 + x_1 w_1 + x_2 w_2 \qquad y_1 = x_1 w_0 + x_2 w_1 + x_3 w_2$$
#
# Six multiplications. **Predict:** can it be done with fewer?
#
# ## Step 1: multiply polynomials by their values
#
# First another problem: multiply two polynomials.
#
# $$(a_0 + a_1 t)(w_0 + w_1 t + w_2 t^2) = c_0 + c_1 t + c_2 t^2 + c_3 t^3$$
#
# In school you multiply each with each: six multiplications. But a polynomial with four coefficients is
# known when you know its *values* at four points. And the value of a product is the product of the values:
# *one* multiplication for each point. We take $t = 0, 1, -1$, where values are only sums, and "infinity",
# where only the highest power counts:
#
# | $t$ | value of the first | value of the second | product |
# |---|---|---|---|
# | 0 | $a_0$ | $w_0$ | $p_0 = c_0$ |
# | 1 | $a_0 + a_1$ | $w_0 + w_1 + w_2$ | $p_1 = c_0 + c_1 + c_2 + c_3$ |
# | -1 | $a_0 - a_1$ | $w_0 - w_1 + w_2$ | $p_2 = c_0 - c_1 + c_2 - c_3$ |
# | $\infty$ | $a_1$ | $w_2$ | $p_3 = c_3$ |
#
# Four multiplications. Back to the coefficients: $c_0 = p_0$, $c_3 = p_3$, and from the sum and the
# difference of the two in the middle $c_2 = \frac{p_1 + p_2}{2} - p_0$ and $c_1 = \frac{p_1 - p_2}{2} -
# p_3$.

# %%
A = np.array([[1, 0], [1, 1], [1, -1], [0, 1]])  # from a to its values
G = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]])  # from w to its values
C = np.array([[1, 0, 0, 0], [0, 0.5, -0.5, -1], [-1, 0.5, 0.5, 0], [0, 0, 0, 1]])  # from the products to c

# %% tags=["check"]
a2, w3 = np.array([3.0, -1.0]), np.array([2.0, 5.0, 7.0])
print("four multiplications:", C @ ((A @ a2) * (G @ w3)))
print("each with each:      ", np.convolve(a2, w3))

# %% [markdown]
# ## Step 2: turn it round
#
# What have polynomials to do with convolution? Look at the coefficients: $c_k = \sum_i a_i w_{k - i}$. For a
# fixed $w$ this is linear in $a$: each $a_i$ is *added to* three places of $c$, with the weights $w_0, w_1,
# w_2$. Our convolution *reads from* three places of $x$ with the same weights. You have met this pair in
# lessons 5 and 6: they are each other's **adjoint**, matrix and transposed matrix.
#
# Step 1 says that the matrix from $a$ to $c$ is $C \cdot \text{diag}(G w) \cdot A$, where diag means:
# multiply number by number. So the transposed matrix, the convolution, is
#
# $$y = A^T \big[\, (G w) \odot (C^T x) \,\big]$$
#
# A chain is transposed by reversing it. The four multiplications in the middle stay four.

# %% tags=["check"]
x4 = np.array([1.0, -2.0, 4.0, 3.0])
print("four multiplications:", A.T @ ((G @ w3) * (C.T @ x4)))
print("six multiplications: ", np.array([x4[:3] @ w3, x4[1:] @ w3]))

# %% [markdown]
# This is **F(2, 3)**: two outputs of a kernel of three. Sums are not free either, but $G w$ is computed once
# for a whole picture, and the other two transforms once for *all* channels on the other side. With $C$
# channels in and $O$ out, a tile needs $C$ times the one, $O$ times the other, and $C \cdot O$ times the
# four multiplications.
#
# In two dimensions do it down the columns and then along the rows: a 4 x 4 tile of the image gives 2 x 2
# pixels, with $4 \cdot 4 = 16$ multiplications in place of $4 \cdot 9 = 36$. With more points it becomes
# better: for **F(4, 3)** take six points, $0, 1, -1, 2, -2, \infty$. A tile of 6 x 6 gives 4 x 4 pixels,
# with 36 multiplications in place of 144: a quarter. Tiles overlap by two pixels, as neighbouring patches
# do:

# %%
figure, axes = plt.subplots(figsize=(6, 3.8))
axes.imshow(0.6 + 0.4 * photo[100:110, 36:54] / 255)
for left, colour in ((1, "C3"), (5, "C0"), (9, "C2")):
    axes.add_patch(plt.Rectangle((left - 0.5, 1.5), 6, 6, fill=False, edgecolor=colour, linewidth=3))
    axes.add_patch(plt.Rectangle((left + 0.5, 2.5), 4, 4, color=colour, alpha=0.4))
axes.set_title("three tiles of 6 x 6, and the 4 x 4 pixels that each gives")
axes.set_xticks([])
axes.set_yticks([])
plt.show()

# %% [markdown]
# ## Winograd in twenty lines of NumPy
#
# The matrices come from the points: rows of powers $1, t, t^2 \dots$, for infinity only the last number. $C$
# goes from values back to coefficients: it is the inverse.


# %%
def matrices(points, outputs):
    """C.T, G and A for a number of outputs and a kernel of 3; infinity is added to the points."""
    size = len(points) + 1

    def powers(count):
        return np.array([*([t**k for k in range(count)] for t in points), [0] * (count - 1) + [1]], float)

    return np.linalg.inv(powers(size)).T, powers(3), powers(outputs)


F2, F4 = matrices((0, 1, -1), 2), matrices((0, 1, -1, 2, -2), 4)

# %% tags=["check"]
same = [np.allclose(made, above) for made, above in zip(F2, (C.T, G, A), strict=True)]
print("F(2, 3): the matrices above:", *same)
ours, theirs = F4[0], np.array(winograd.BT)
scale = (ours * theirs).sum(axis=1) / (theirs**2).sum(axis=1)  # a factor in the one, its inverse in the other
same = [np.allclose(ours, scale[:, None] * theirs), np.allclose(F4[1] * scale[:, None], winograd.G)]
print("F(4, 3): the library's matrices, but for a factor for each point:", *same)

# %% [markdown]
# The products of *all* tiles and channels belong together: for each of the 36 places in a tile there is a
# matrix product, tiles x C times C x O. The transforms are products too, of a small matrix with everything
# else in one long row.


# %%
def kernel_values(w, F):
    """(side, side, C, O): the values of w (3, 3, C, O) at the points, down the columns and along the rows."""
    G = F[1].astype(w.dtype)
    return np.einsum("ip,jq,pqco->ijco", G, G, w, optimize=True)


def winograd_whole(x, kernel, F):
    """3x3 convolution. F: the matrices for tiles of m x m results; the size must be a multiple of m."""
    CT, A = F[0].astype(x.dtype), F[2].astype(x.dtype)
    (side, m), (n, h, width, c) = A.shape, x.shape
    rows, columns, o = (h - 2) // m, (width - 2) // m, kernel.shape[3]
    tiles = np.empty((side, side, n, rows, columns, c), x.dtype)
    for p in range(side):  # the pixels (p, q) of all tiles: a slice with step m
        for q in range(side):
            tiles[p, q] = x[:, p : p + m * rows : m, q : q + m * columns : m]
    values = CT @ (CT @ tiles.reshape(side, -1)).reshape(side, side, -1)
    product = values.reshape(side, side, -1, c) @ kernel
    y = A.T @ (A.T @ product.reshape(side, -1)).reshape(m, side, -1)
    y = y.reshape(m, m, n, rows, columns, o).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, m * rows, m * columns, o)


def winograd_on_the_layer(F):
    return lambda x, w: winograd_whole(x, kernel_values(w, F), F)


race("Winograd F(2x2)", winograd_on_the_layer(F2))
race("Winograd F(4x4)", winograd_on_the_layer(F4))

# %% [markdown]
# A quarter of the multiplications, and by far not four times as fast; with F(2x2) next to nothing is left of
# its gain. The transforms take time, and look at the sizes: the tiles hold 36/16 times the numbers of `x`,
# and so do the values and the products. All of that goes to memory and back. Rule two again: in bands.


# %%
def winograd_in_blocks(x, w, F=F4, tiles=4):
    kernel, step = kernel_values(w, F), tiles * F[2].shape[1]
    bands = [winograd_whole(x[:, top : top + step + 2], kernel, F) for top in range(0, x.shape[1] - 2, step)]
    return np.concatenate(bands, axis=1)


race("Winograd in blocks", winograd_in_blocks)

# %% [markdown]
# That is faster than this core can multiply: the GFLOP/s, which are counted as if every product had been
# computed, are above the peak that we measured. *Fewer operations help only when memory does not hold them
# up.*
#
# The library's `ops/fast/winograd.py` does the same, more carefully, and backward as well. With respect to
# `x` that is again a convolution of 3 x 3 (lesson 5); with respect to `w` the chain is transposed once more:
# from `dy` to the values by $A$, a product with the values of the tiles, and back by $G^T$.

# %%
race("library, one core", lambda x, w: ops.conv2d(x, w)[0])

# %% [markdown]
# ## From naive to fast

# %% tags=["cover"]
figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
bars = axes.barh(list(results), list(results.values()), color=["C3"] + ["C0"] * (len(results) - 1))
labels = [f"{1000 * t:,.1f} ms" if t < 1 else f"{t:,.0f} s" for t in results.values()]
axes.bar_label(bars, labels, padding=4)
axes.set_xscale("log")
axes.set_xlim(1e-3, 1e4)
axes.invert_yaxis()
axes.set_xlabel("seconds of one core for the layer (logarithmic; seven loops: computed, not waited for)")
plt.show()
fastest = min(results.values())
print(f"from seven loops to the fastest: {results['seven loops'] / fastest:,.0f} times as fast")

# %% [markdown]
# ## What is lost: digits
#
# Why not take larger tiles still? F(6, 3) needs 64 multiplications for 36 pixels, less than a fifth. But its
# eight points include $\pm\frac12$ and $\pm 2$, whose powers are far apart in size. Large numbers are added
# and must cancel, and each addition rounds.

# %%
F6 = matrices((0, 1, -1, 2, -2, 0.5, -0.5), 6)
left, errors = {}, {}
inner = x[:, :122, :122]  # 120 x 120 results: a multiple of 2, 4 and 6
for name, F in (("two loops", None), ("F(2x2)", F2), ("F(4x4)", F4), ("F(6x6)", F6)):
    y = two_loops(inner, w) if F is None else winograd_on_the_layer(F)(inner, w)
    errors[name] = abs(y - truth[:, :120, :120]).max() / abs(truth).max()
    left[name] = 1 if F is None else (len(F[2]) / F[2].shape[1]) ** 2 / 9

figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
axes.semilogy(list(left.values()), list(errors.values()), "o")
for name in left:
    axes.annotate(name, (left[name], errors[name]), xytext=(8, 4), textcoords="offset points")
axes.set_xlabel("multiplications, as a share of the direct way")
axes.set_ylabel("error in float32, as a share of the largest")
axes.set_xlim(0, 1.2)
axes.set_ylim(1e-7, 1e-4)
plt.show()

# %% [markdown]
# A hundred thousandth is nothing for a picture with 256 levels. For a check of gradients, use float64.
#
# ## Memory
#
# Speed and memory are the same subject: what is not made need not be written or read. What does each of our
# ways take at its peak, beside `x` and `w`? And what does the painting network take, to paint and to train?
#
# **Predict before you run:** in training, forward must keep what backward needs. How many times as much
# memory is that?


# %%
def peak_memory(function, *arguments):
    """The most megabytes that were in use at one time during the call."""
    tracemalloc.start()
    function(*arguments)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e6


ways = {
    "two loops": two_loops,
    "patches @ weights": one_large_product,
    "patches in blocks": patches_in_blocks,
}
ways |= {"Winograd F(4x4)": winograd_on_the_layer(F4), "Winograd in blocks": winograd_in_blocks}
taken = {name: peak_memory(way, x, w) for name, way in ways.items()}
big = photo[None, :256, :256]
fresh = load_style("starry_night_single")
networks = {
    "weights": sum(p.nbytes for p in fresh.parameters().values()) / 1e6,
    "paint 256 x 256": peak_memory(fresh.forward, big),
    "forward in training": peak_memory(lambda: fresh.forward(big, training=True)),
}

figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for axes, values, title in zip(panels, (taken, networks), ("one layer", "the painting network"), strict=True):
    bars = axes.barh(list(values), list(values.values()))
    axes.bar_label(bars, [f"{v:.0f}" for v in values.values()], padding=4)
    axes.set_xlim(0, 1.15 * max(values.values()))
    axes.invert_yaxis()
    axes.set_xlabel("megabytes at the peak")
    axes.set_title(title)
plt.show()

# %% [markdown]
# The weights are the smallest part. A network that paints can forget each layer's input when the next layer
# has it; a network that trains must keep them all until backward has come by. That is why photos of any size
# can be painted, and why training is done on 256 x 256 pixels.

# %% [markdown]
# ## Exercise: beat the two loops
#
# The first layer of the painting network has a kernel of 9 x 9 and only 3 channels. Two loops are 81
# products here, each with only 3 numbers in a row, and each adds to the whole of `y`. Write a convolution
# that is at least three times as fast. Stride 1, no padding, the same result in float32.


# %% tags=["exercise"]
def my_conv(x, w):
    """x (N, H, W, C), w (KH, KW, C, O) -> y (N, H-KH+1, W-KW+1, O) in x's dtype."""
    raise NotImplementedError("not yet written")


# %%
def try_conv(function):
    sizes = ((2, 12, 15, 3), (9, 9, 3, 4)), ((1, 9, 8, 5), (2, 3, 5, 7)), ((1, 136, 136, 3), (9, 9, 3, 32))
    for shape, kernel in sizes:
        x, w = rng.normal(size=shape).astype(np.float32), rng.normal(size=kernel).astype(np.float32)
        try:
            mine, right = function(x, w), two_loops(x, w)
        except NotImplementedError:
            return "not written yet"
        if mine.shape != right.shape or mine.dtype != right.dtype:
            return (
                f"x {shape}, w {kernel}: y is {mine.shape} {mine.dtype}, it should be {right.shape} float32"
            )
        if not np.allclose(mine, right, atol=1e-3):
            return f"x {shape}, w {kernel}: a result differs by {abs(mine - right).max():.2g}"
    ratio = seconds(two_loops, x, w) / seconds(function, x, w)
    verdict = "well done" if ratio >= 3 else "right, and not yet three times as fast"
    return f"{verdict}: {ratio:.1f} times as fast as two loops"


print(try_conv(my_conv))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which of the functions above touches `y` only once, and gives the product long rows to work on? How many
# numbers has a row of its table here?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `patches` has two loops over the taps, too, and each copies only 3 numbers at a time. A copy is fast when
# it takes long runs of neighbouring numbers: an image row of *one* channel is a long run. So lay `x` out
# channel by channel first, `planes` (N, C, H, W). `np.lib.stride_tricks.sliding_window_view(planes, (kh,
# kw), axis=(2, 3))` shows all patches without a copy, (N, C, OH, OW, KH, KW). Put the pixels last, take some
# rows at a time, and turn `w` to fit.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def my_conv(x, w, rows=8):
#     (n, h, width, c), (kh, kw, _, o) = x.shape, w.shape
#     y = np.empty((n, h - kh + 1, width - kw + 1, o), x.dtype)
#     flat = w.transpose(2, 0, 1, 3).reshape(-1, o)
#     planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2))  # channel by channel: long rows to copy
#     seen = np.lib.stride_tricks.sliding_window_view(planes, (kh, kw), axis=(2, 3))
#     for k in range(n):
#         for top in range(0, y.shape[1], rows):
#             band = seen[k, :, top : top + rows].transpose(0, 3, 4, 1, 2)  # (C, KH, KW, rows, OW)
#             result = band.reshape(len(flat), -1).T @ flat
#             y[k, top : top + rows] = result.reshape(-1, y.shape[2], o)
#     return y
# ```
#
# `reshape` of such a view copies, and it copies whole image rows. So do `windows.py` and `_patch_products`
# in the library, for the same reason.
#
# </details>
#
# Then try the last layer: 9 x 9, 32 channels in, 3 out. There a product has only 3 *columns*. The library's
# `_shifted_products` multiplies first, for all taps at once, and moves the results afterwards.

# %% [markdown]
# ## The same on a GPU: what would differ
#
# A GPU has thousands of small cores and its own memory. The mathematics stays, and the three rules become:
#
# - **No loop over pixels**: one **kernel** (here: a small program) runs for all pixels at once. To start one
#   takes some ten microseconds, so that many small operations are slow for the reason that small NumPy calls
#   are.
# - **Blocks**: each group of cores has a fast memory of about a hundred kilobytes, which the program fills
#   itself. On a CPU the cache decides what to keep; here you do.
# - **Threads**: nobody waits for Python's lock. But photos must first be copied to the GPU's memory, and
#   results back.
#
# CuPy could run the same Python on a GPU. One block would then be the whole batch, since there each call
# costs more and memory is faster. A training step would be 2,080 array operations (counted on the tests'
# stand-in for CuPy: 750 in Winograd's convolutions, 900 in the norms, which join their sums in float64).
# Adam parameter by parameter, and what in the norms and at the images' edges only blocks need, were 1,100
# more. The kernels in `ops/fast/cuda` are written for the GPU itself, one or two for each operation: a
# training step is 275 launches. (Counted with CuPy on an emulated GPU. No real one has run them yet.)

# %% [markdown]
# ## Do it large
#
# ```sh
# tinynst bench --layers                                   # where the time of a training step goes
# tinynst bench --sweep --plot sweep.png                   # time against size and batch
# tinynst bench --peer torch --work train --batches 4 1    # beside PyTorch
# ```

# %% [markdown]
# ## What you have seen
#
# - Measure first. Convolution is nearly all of it.
# - No Python loop over pixels; blocks that stay in the cache; large pieces for each core.
# - Winograd: polynomial multiplication through values at points, turned round by the adjoint. A quarter of
#   the multiplications; fewer digits; and little gained until memory keeps up.
# - To paint, a network needs little memory; to train, it keeps everything for backward.
#
# **In the paper:** section 4.1 compares speed: three orders of magnitude faster than optimising a picture.
# **In the library:** `ops/fast/`: read `winograd.py` first (235 lines, forward and backward), then
# `parallel.py` for how the work is cut up, then `conv.py` for the convolutions that Winograd's way does not
# fit. The plain versions in `ops/` are what they are tested against.
#
# **Next:** the rest of this page is for those who want to make it faster still: what was tried in the
# library, and what it gave.

# %% [markdown]
# ## For reference: what Winograd costs
#
# A training step at 256 x 256 takes VGG alone 97 billion operations an image (a multiplication and an
# addition are two). In F(4x4, 3x3) with C channels in and O out, a pixel costs
#
#     4.5 C O     the products themselves (18 C O without Winograd)
#      18 C       image rows to their values down the columns: a 6x6 matrix for every 4 rows
#      27 C       those, cut into tiles, to their values along the rows
#      30 O       back: 4x6 matrices, along the rows and down the columns
#
# The transforms were products with one dense 36x36 matrix at first, 162 C operations, then with two of
# 18x18, 81 C (the points come in pairs, 1 and -1, 2 and -2, where even terms agree and odd ones are
# opposite). One axis at a time is the fewest, and it was tried last: a product with a 6x6 matrix runs at
# half the speed of one with 36x36, because it loads and stores a number every six multiplications. Something
# else decides. Down the columns the matrix works on whole image rows in place, 6 of them for every 4, and no
# tile needs to be cut for that; only the values are cut into tiles, along the rows. That saves a pass over
# the block, and a copy of its window. A step at batch 1 went from 0.88 s to 0.84 with it and the first forms
# of the three changes below it.
#
# Larger tiles (8x8, F(6x6, 3x3)) save a fifth of the products, for larger transforms and twice the rounding
# (1e-5 to 3e-5). In a trial they gave a tenth with 64 channels at 256x256, and nothing with 128 at 128x128
# or 256 at 64x64, where the last tiles reach over the edge. Smaller ones (F(2x2)) gave nothing where tiles
# are few. So all are 4x4.

# %% [markdown]
# ## For reference: what was slow, and why
#
# Measured on two cores of an AMD EPYC (Zen 4). Each was found by a profile, most of them with one thread and
# a clock around a single step.
#
# - Transforms one axis at a time, down whole image rows first (`_values`): 17, 20, 27 → 14, 15, 19 ms for y,
#   dx, dw, 64 channels at 256x256. See above.
# - The kernel's transform too (`_both_ways`): 10.0 → 3.8 ms, 512 to 512 channels, one thread. A dense 36x9
#   matrix writes 36 rows at once, far apart in memory, a 6x3 one six (into memory that was in cache already
#   the dense one took 3.8 ms too).
# - A kernel turned round for dx is copied by way of padded rows (`transformed`): 5.3 → 2.3 ms, the same. A
#   walk down the columns of rows 2 KB apart falls on few lines of the cache.
# - The kernel gradient's sums go back to dw so too, and at once to their place: 9 → 6 ms, 512 channels at
#   16x16. They went through three copies, two of them on one core.
# - The first layer's dx: each pixel's contribution to the 9 that see it, in one product, then 9 additions
#   (`_few_outputs`): 7.0 → 4.3 ms. 27 columns instead of 9, and no patches to copy.
# - Products of less than a million multiply-adds (`product`): 74 → 104 GFLOP/s. OpenBLAS then leaves the
#   operands where they are; otherwise it copies them into its own order first, which takes as long when they
#   are used a few times.
# - Those products in panels of 64 columns, each in one piece of memory (`panels`): 62 to 86 → 88 to 103
#   GFLOP/s, 128 and more channels. With all columns at once a million multiply-adds are too few rows, and
#   panels a row of the kernel apart fall on the same lines of the cache.
# - Such products of 16 rows too, not only of 24 and more (`_parts`): 15.5 → 10.6 ms, 512 channels at 32x32.
#   32 rows of 512 channels are a little more than a million, and OpenBLAS copied after all.
# - How to cut a product is found once a size, not at every product (`_parts`): 46 → 95 GFLOP/s, 16x36 times
#   4,096 columns. A search for a divisor, one Python step a candidate, took up to 0.1 ms, and held Python's
#   lock.
# - Few tiles: the cores share the channels, not the tiles: 7.2 → 3.5 ms, 512 channels at 16x16. The
#   transformed kernel, 38 MB, is read from memory once and not once a core.
# - The kernels' transforms and Adam on all cores: 66 → 49 ms a step at batch 1 outside `run`. What one core
#   does alone, the other waits for.
# - Memory of freed arrays kept (`_keep_freed_memory`): 3.6 s → 2.9 s a step at batch 4. The C library gives
#   arrays above 32 MB back to the system, which clears each page anew.
# - Blocks of 4 MiB, not 1: 127 ms → 50 ms for a 9x9 layer. At the end of each NumPy call a thread takes
#   Python's lock; short calls wait for each other.
# - Core k works on the k-th part of every image (`run`): 1.06 s → 0.87 s a step at batch 1. What a core
#   wrote in one layer it finds in its own cache in the next.
# - ReLU by `clip`, not `maximum` with a number: 0.45 → 0.15 ns a number. NumPy has a vector loop for one and
#   not for the other.
# - The bias added to one of the 36 values: 0.25 ns a pixel → nothing. A constant picture has the value 1 at
#   the point (1, 1) and 0 elsewhere.
# - Norms by whole rows (`_per_row`): 0.24 → 0.13 ns a number. A loop over W*C numbers, not over C.
# - Sums over pixels as products with ones (`pixel_sum`): 0.4 → 0.1 ns a number. BLAS adds with more
#   registers than NumPy.

# %% [markdown]
# ## For reference: what did not help
#
# - Pinning threads to cores; one image a thread through the whole of VGG (as fast, and no faster).
# - Winograd's kernel gradient with all channels at once for many tiles (its sums are four times the kernel);
#   splitting a product along C.
# - Huge pages for scratch memory; one arena of scratch memory for all operations; keeping idle cores awake.
# - Blocks smaller or larger than 4 MiB, or a small one at the end of each core's part (a late core hands
#   over less, but each block costs Python its time).
# - A kernel's transform made panel by panel beside its product (with 512 channels at 16x16 no more than two
#   runs differ; worse at 32x32).
# - The content's features on one core beside the style net's forward pass on the other (3 %, less than two
#   runs differ); dx on one core and dw on the other.

# %% [markdown]
# ## For reference: what limits it now
#
# The step at batch 1 is about 57 billion operations in this form, by count. A core does 107 a second at
# best: 0.27 s on two cores. It takes 0.74 s, on one core 1.05.
#
# - A third of one core's time is not products: copying tiles, norms, masks, pooling. That is bound by
#   memory, and memory gives 20 GB/s to one core and 25 to two.
# - Python between two NumPy calls costs more on two cores than on one. Two small products take one thread 33
#   us, and two threads at once 39 us each. With 12 us of Python around them it is 45 us for one thread, and
#   100 each for two: a thread that finds Python's lock taken goes to sleep, and on this machine, a virtual
#   one, waking takes up to 0.1 ms. Hence large blocks and few calls in a job (one block of Winograd's, with
#   next to nothing to compute, takes 61 us; it was 69).
# - The cores wait for each other at the end of every layer and while one of them works alone: 0.08 s of the
#   step the first core only waits.
# - Two threads that only take turns and never work at once need 15 % more processor time than one (half of
#   it even on one and the same core): each has scratch memory of its own, and each core a cache that the
#   other has not filled.
# - With 512 channels on 16x16 pixels there are 16 tiles for a kernel of 38 MB in transformed form; a frozen
#   net keeps that, a net that learns makes it anew, which is bound by memory: dx and dw take as long as
#   PyTorch's in a quiet hour (16 ms), and 27 ms while neighbours use the memory too. With 3 channels there
#   is nothing to transform: the plain way, a product with 27 rows and 64 columns at 75 GFLOP/s a core, takes
#   for each number that is written 27 multiplications only.

# %% [markdown]
# ## For reference: against size and batch
#
# Time grows no faster than the pixels, from 128x128 to eight images of 1024x1024, but for what a busy
# machine adds: four images of 1024x1024 took 2.1 to 2.4 times as long as two, and eight 1.8 to 2.0 times as
# long as four (`tinynst bench --sweep --plot sweep.png`):
#
# ![Milliseconds against image size and batch](performance/sweep.png)
