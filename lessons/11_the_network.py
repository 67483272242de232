# %% [markdown]
# # 11. The network
#
# **After this lesson you can** read the table of the painting network line by line, count what it costs,
# measure what one pixel of its result sees, and write a residual block with its backward pass.
#
# About 55 minutes. You need lessons 2 and 5.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import check, layers, load_style, ops, show, style_net
from tinynst.data import images
from tinynst.samples import PHOTOS

photo = images.load(PHOTOS / "chelsea.jpg", size=128)
net = load_style("starry_night_single")
show(photo=photo, painted=net.forward(photo[None])[0])

# %% [markdown]
# Between these two pictures there are some twenty layers. Here is the cat on its way through them: the
# mean over all channels after some of the layers, drawn from its darkest to its brightest value.


# %%
def through(net, picture):
    """{layer's name: its output (H, W, C)} for one picture."""
    x, outputs = net._centred(picture[None])[0], {}
    for name, layer in net.layers.layers.items():
        x = layer.forward(x)
        outputs[name] = x[0]
    return outputs


def drawn(x):
    """The mean over the channels, from 0 to 255; a few extreme values are cut off."""
    x = x.mean(axis=2)
    low, high = np.percentile(x, (2, 98))
    return np.clip(255 * (x - low) / (high - low), 0, 255)


outputs = through(net, photo)
chosen = ("pad", "conv1_norm", "conv3_norm", "residual1", "residual3", "residual5", "up1_norm", "up2_norm")
show(**{name: drawn(outputs[name]) for name in chosen})

# %% [markdown]
# Edges at first; then, block by block, the edges become the strokes of the painting. (Each is drawn at
# the same size. In truth `conv3_norm` has only a quarter of the rows and columns.) Now the table. A
# network prints itself:

# %%
print(repr(net))

# %% [markdown]
# Read it from top to bottom. There are three parts.
#
# - **Down**: `conv1` to `conv3`. Two convolutions have stride 2, so that the picture gets smaller, 84 x
#   84 in place of 336 x 336, while the number of channels grows from 3 to 128.
# - **Work**: five residual blocks, all at the small size.
# - **Up**: back to the full size, and from 32 channels to three colours.
#
# The first layer puts a mirrored border of 40 pixels around the photo. The convolutions in the blocks
# have no padding, so each of them eats a pixel on every side: 10 convolutions, at a quarter of the size,
# eat $10 \cdot 4 = 40$ pixels. Why the effort? Padding with zeros draws a dark frame, and ten layers of
# it would be seen in the painting.
#
# ## The sizes, derived
#
# A convolution slides a window of $k$ numbers over a row of $H$ numbers with $p$ more on each side, in
# steps of $s$. The first window begins at place 0, the last one at place $H + 2p - k$ or a little before,
# if the steps do not end there. So the result has
#
# $$\left\lfloor \frac{H + 2p - k}{s} \right\rfloor + 1$$
#
# numbers. Follow one side of the photo through the network with this formula, and compare with the arrays
# that the cat left behind above:


# %% tags=["check"]
def side_after(parts, side):
    """The side of the result of some layers, by the formula."""
    for layer in parts.values():
        if isinstance(layer, layers.Residual):
            side = side_after(layer.layers, side)
        elif isinstance(layer, layers.Conv):
            kernel = len(layer.parameters()["w"])
            side = (side + 2 * layer.pad - kernel) // layer.stride + 1
        elif isinstance(layer, layers.Upsample):
            side = 2 * side
        elif isinstance(layer, layers.ReflectPad):
            side = side + 2 * layer.settings["pad"]
    return side


side = photo.shape[0]
for name, layer in net.layers.layers.items():
    side = side_after({name: layer}, side)
    if name in ("pad", "conv1", "conv2", "conv3", "residual1", "residual5", "up1", "up2", "out"):
        print(f"{name:10} {side:4} by the formula, {outputs[name].shape[0]:4} in the array")

# %% [markdown]
# The last number is the first one again. That is no accident, but it is not so for every photo.
#
# **Predict before you run:** what comes out of the layers for a photo of 101 x 66 pixels? Go through the
# two strides and the two enlargements. What must the network do with the result?

# %% tags=["check"]
odd = images.resize(photo, 101, 66)
print("the layers make:", *(side_after(net.layers.layers, side) for side in odd.shape[:2]))
print("the network makes:", *net.forward(odd[None]).shape[1:3])

# %% [markdown]
# Each stride rounds up to the next even number, so the layers make multiples of 4. `StyleNet.forward`
# takes off what is too much at the bottom and at the right. (Backward puts zeros there: what was cut off
# has no influence on the loss.)
#
# ## Why down and up again?
#
# A convolution with kernel $k$ from $C$ to $O$ channels needs $k^2 C$ products for each of its
# $H \cdot W \cdot O$ outputs. Let us count all of them from the network itself: the kernels from
# `parameters()`, the sizes from `out_shape`.


# %%
def convolutions(parts, shape, prefix=""):
    """Yield (name, number of weights, products) of all convolutions, for an input (H, W, C)."""
    for name, layer in parts.items():
        if isinstance(layer, layers.Residual):
            yield from convolutions(layer.layers, shape, f"{name}.")
        shape = layer.out_shape(shape)
        if isinstance(layer, layers.Conv):
            weights = layer.parameters()["w"].size
            yield prefix + name, weights, weights * shape[0] * shape[1]  # each weight is used at each place


counted = list(convolutions(net.layers.layers, (256, 256, 3)))

# %% tags=["check"]
print(f"weights in convolutions: {sum(weights for _, weights, _ in counted):,}")
print(f"products for a photo of 256 x 256: {sum(products for *_, products in counted):,}")

# %% [markdown]
# **Predict before you run:** the ten convolutions of the blocks hold seven eighths of the weights. Do
# they also take seven eighths of the work?

# %%
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
places = np.arange(len(counted))
for shift, column, label in ((-0.2, 1, "weights"), (0.2, 2, "products")):
    values = np.array([row[column] for row in counted], float)
    axes.bar(places + shift, 100 * values / values.sum(), 0.4, label=label)
axes.set_xticks(places, [row[0] for row in counted], rotation=60, ha="right")
axes.set_ylabel("share of the whole, percent")
axes.legend()
plt.show()

# %% [markdown]
# No, only six tenths of it. `conv1`, `up1`, `up2` and `out` have few weights, but they use them at every
# pixel of a large picture. The blocks have many weights, and use them at a sixteenth of the places.
#
# That is the first reason to go down. At full size with $C$ channels, a 3 x 3 convolution needs
# $9 H W C^2$ products. With $D$ times fewer rows and columns, and $D$ times as many channels, it needs
# $9 \frac{H}{D} \frac{W}{D} (D C)^2$: just as many. So for the same price one gets a network with $D$
# times the channels.

# %% tags=["check"]
for text, side, channels in (("full size,  32 channels", 256, 32), ("a quarter, 128 channels", 64, 128)):
    products, parameters = 9 * side**2 * channels**2, 9 * channels**2
    print(f"a 3x3 convolution at {text}: {products:,} products, {parameters:,} weights")

# %% [markdown]
# ## What one pixel sees
#
# The second reason is the **receptive field**: the part of the input that one number of the output
# depends on. A 3 x 3 convolution sees 3 pixels in each direction. Two of them see 5, since the second one
# sees three places, each of which sees three. Each more adds 2. A brush stroke in our painting is some 20
# pixels long, and at full size it would need ten layers only to see it whole.
#
# After a stride of 2, neighbours are two pixels of the photo apart, so that each 3 x 3 convolution adds
# 4; after two strides, 8.
#
# Let us compute it. We ask backward, from the end to the beginning: which rows of its input does a layer
# need, to compute rows $a$ to $b$ of its output?
#
# | layer | needs rows |
# |---|---|
# | convolution, kernel $k$, stride $s$, padding $p$ | $s\,a - p$ to $s\,b - p + k - 1$ |
# | enlarging by 2 | $\lfloor a / 2 \rfloor$ to $\lfloor b / 2 \rfloor$ |
# | reflection padding by $p$ | $a - p$ to $b - p$ |
# | norm, tanh, ReLU | $a$ to $b$ (for the norm, see below) |
#
# In a residual block, the way past the layers needs less than the way through them. So only the layers
# count.


# %%
def rows_seen(parts, a, b):
    """The first and last row of the input that rows a to b of the output depend on."""
    for layer in reversed(parts.values()):
        if isinstance(layer, layers.Residual):
            a, b = rows_seen(layer.layers, a, b)
        elif isinstance(layer, layers.Conv):
            kernel = len(layer.parameters()["w"])
            a, b = layer.stride * a - layer.pad, layer.stride * b - layer.pad + kernel - 1
        elif isinstance(layer, layers.Upsample):
            a, b = a // 2, b // 2
        elif isinstance(layer, layers.ReflectPad):
            a, b = a - layer.settings["pad"], b - layer.settings["pad"]
    return a, b


# %% tags=["check"]
first, last = rows_seen(net.layers.layers, 128, 128)
print(f"row 128 of the painting sees rows {first} to {last} of the photo: {last - first + 1} rows")

# %% [markdown]
# ## Measure it with a gradient
#
# There is a way to *measure* what an output pixel sees, and you know it: the gradient. Put a 1 at one
# pixel of `dy`, and zeros elsewhere. Backward then gives the slope of that one pixel with respect to
# every pixel of the photo. Where the gradient is zero, the pixel does not look.
#
# (Nearly zero, to be exact: the library's fast convolution adds numbers and takes them away again, which
# leaves some $10^{-16}$ where there should be nothing. We take such numbers for zero.)
#
# We take a fresh network of this form with fewer channels, in float64, and leave out the norms with their
# ReLUs for now. What is left are only sums and products, so no path is closed by chance.

# %%
small = style_net(width=4, upsample="nearest", dtype=np.float64, seed=0)


def without_norms(parts):
    """The layers of a network without its norms and their ReLUs, and without the tanh."""
    kept = {}
    for name, layer in parts.items():
        if isinstance(layer, layers.Residual):
            kept[name] = layers.Residual(without_norms(layer.layers), layer.crop)
        elif not isinstance(layer, layers.InstanceNorm | layers.ScaledTanh):
            kept[name] = layer
    return kept


def seen_by(chain, size=256):
    """|slope| of the middle pixel of the output with respect to each pixel of the input, (H, W)."""
    x = np.random.default_rng(0).uniform(-100, 100, (1, size, size, 3))
    dy = np.zeros_like(chain.forward(x, training=True))
    dy[0, size // 2, size // 2] = 1
    slopes = abs(chain.backward(dy)[0]).sum(axis=2)
    return np.where(slopes > 1e-12 * slopes.max(), slopes, 0)  # what is smaller is rounding


plain = seen_by(layers.Sequential(without_norms(small.layers.layers)))

# %% tags=["check"]
rows = np.flatnonzero(plain.any(axis=1))
print(f"measured: rows {rows[0]} to {rows[-1]}, {len(rows)} rows")

# %% [markdown]
# The same numbers, from two quite different ways. Now with the norms.
#
# **Predict before you run:** instance norm takes the mean of *all* pixels of a channel. What does one
# pixel see now?

# %% tags=["cover"]
normed = seen_by(layers.Sequential(small.layers.layers))
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axis, slopes, title in ((axes[0], plain, "without norms"), (axes[1], normed, "with instance norm")):
    share = np.log10(np.maximum(slopes / slopes.max(), 1e-8))
    drawing = axis.imshow(share, cmap="magma", vmin=-8, vmax=0)
    axis.set_title(title)
    axis.set_xlabel("column of the photo")
axes[0].set_ylabel("row of the photo")
figure.colorbar(drawing, ax=axes, label="log10 of |slope|, relative to the largest")
plt.show()

# %% tags=["check"]
print(f"with instance norm, {(normed > 0).mean():.0%} of the photo reaches the pixel")
near = np.s_[first : last + 1, first : last + 1]
print(f"and {(normed > 0)[near].mean():.0%} of the square from before")

# %% [markdown]
# Everything. The square is still the bright part, but through the means a little of the whole photo comes
# in. It follows that a photo cannot be painted exactly in tiles, each by itself: each tile has another
# mean. (Batch norm uses fixed, running means when it paints, and there tiles that overlap by the
# receptive field are exact.)
#
# Notice also that the square is not evenly bright. Many paths lead from the middle of the square to the
# pixel, and only few from its corners.
#
# **Predict before you run:** how large is the square around the middle that holds nine tenths of the
# influence?

# %% tags=["check"]
middle = (first + last) // 2
for share in (0.5, 0.9, 0.99):
    for reach in range(1, 128):
        inside = np.s_[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
        if plain[inside].sum() >= share * plain.sum():
            break
    print(f"{share:.0%} of the influence lies within {2 * reach + 1} x {2 * reach + 1} pixels")

# %% [markdown]
# The receptive field says what a pixel *can* see. What it mostly looks at is smaller. (These weights are
# random. Training changes the shares, not the field.)
#
# ## The residual block
#
# Now the blocks in the middle. A **residual block** adds its input to the result of its layers:
#
# $$y = F(x) + x$$
#
# Here $F$ is: convolution, norm, ReLU, convolution, norm. The way of the $+ x$ past the layers is called
# a **shortcut** or identity connection. $F$ has to learn only what should be *changed* (the residual,
# what is left to do). At the start of training, a block that does not know what to do yet at least does
# no harm.
#
# The backward pass follows from lesson 2: where paths meet, slopes add. Let $x$ grow by $\epsilon$, in
# any direction. Through $F$, $y$ grows by $J \epsilon$ with the Jacobian $J$ of $F$; past it, by
# $\epsilon$. Together $(J + I)\, \epsilon$, with $I$ the identity. So
#
# $$dx = dy \cdot (J + I) = dy \cdot J + dy$$
#
# In words: send `dy` backward through the layers, and add `dy` itself. We check that with a small block
# of the library, against the sum and against differences:

# %% tags=["check"]
rng = np.random.default_rng(0)
inner = {f"conv{k}": layers.Conv(2, 2, 3, pad=1, rng=rng, dtype=np.float64) for k in (1, 2)}
F, block = layers.Sequential(inner), layers.Residual(inner)
x, dy, direction = rng.standard_normal((3, 1, 6, 7, 2))

F.forward(x, training=True)
summed = F.backward(dy) + dy
block.forward(x, training=True)
dx = block.backward(dy)
h = 1e-5
difference = ((block.forward(x + h * direction) - block.forward(x - h * direction)) / (2 * h) * dy).sum()
print(f"library and dy J + dy agree: {np.allclose(dx, summed, 1e-12, 1e-12)}")
print(f"in a random direction: dx gives {(dx * direction).sum():.6f}, differences {difference:.6f}")

# %% [markdown]
# Five blocks in a row are more than one long chain. Multiply the brackets, first for two blocks:
#
# $$(I + J_2)(I + J_1) = I + J_1 + J_2 + J_2 J_1$$
#
# There are four paths: past both, through one, through the other, through both. With five blocks there
# are $2^5 = 32$, and the gradient is the sum over all of them. One of the 32 is $I$: no block at all.

# %% tags=["check"]
J = 0.3 * rng.standard_normal((5, 4, 4))
product, paths = np.eye(4), np.zeros((4, 4))
for each in J:
    product = (np.eye(4) + each) @ product
for path in range(32):  # its bits say which blocks the path goes through
    along = np.eye(4)
    for k in range(5):
        along = J[k] @ along if path >> k & 1 else along
    paths += along
print(f"the product is the sum over 32 paths: {np.allclose(product, paths)}")

# %% [markdown]
# ## What do the blocks do?
#
# If a block can be passed by, we can switch it off: keep the shortcut, leave out $F$. Without a shortcut
# the picture would be lost.
#
# **Predict before you run:** what is left of the painting without block 1, without block 5, without all
# five?


# %%
def paint_without(net, picture, blocks):
    """The painting with some residual blocks replaced by their shortcuts."""
    x, mean = net._centred(picture[None])
    for name, layer in net.layers.layers.items():
        x = ops.center_crop(x, layer.crop)[0] if name in blocks else layer.forward(x)
    return (x + mean)[0]


all_five = [f"residual{k}" for k in range(1, 6)]
without = {"all blocks": [], "without block 1": all_five[:1], "without block 3": all_five[2:3]}
without |= {"without block 5": all_five[4:], "without all five": all_five}
paintings = {title: paint_without(net, photo, blocks)[:, 24:152] for title, blocks in without.items()}
show(photo=photo[:, 24:152], **paintings, columns=3)

# %% [markdown]
# Without one block the painting is nearly the same. (Without the first, a white spot is left, which it
# would have corrected.) Without all five the cat is still there, in the colours of the paint, but there
# are no strokes: the blocks make them, bit by bit.
#
# How much does a block add? At its end stands a norm, so $F(x)$ has about variance 1, whatever $x$ is.
# The mean square of the sum is
#
# $$\overline{(x + F)^2} = \overline{x^2} + \overline{F^2} + 2\, \overline{x F}$$
#
# If $F(x)$ has nothing to do with $x$, the last term is about 0. If the block goes on in the direction of
# what is there, it is positive.

# %% tags=["check"]
x = outputs["conv3_norm"]
for name in all_five:
    before, x = x[2:-2, 2:-2], outputs[name]
    F_x = x - before
    parts = [np.mean(each) for each in (before**2, F_x**2, 2 * before * F_x, x**2)]
    print(f"{name}: {parts[0]:.2f} + {parts[1]:.2f} + {parts[2]:.2f} = {parts[3]:.2f}")

# %% [markdown]
# In four blocks the last term is small: they add something new. The fifth strengthens what is there. And
# all add about the same, 1, to something that grows. After the first block, two thirds of the sum are its
# own (0.97 of 1.45), after the fifth a seventh (1.06 of 7.41). This is why one block can be missed.
#
# ## Why it matters
#
# The $+\,dy$ is the point of it all. Without a shortcut, the gradient is multiplied by one Jacobian after
# the other. If each makes it a little smaller, then after twenty layers nothing is left of it. With
# shortcuts there is always one way on which it arrives unchanged.
#
# **Predict before you run:** twenty pairs of convolutions with random weights, each followed by a ReLU.
# How large is the gradient at the first pair, compared with the last?


# %%
def gradient_sizes(make, depth=20):
    """Mean |gradient| at the input of each of `depth` parts, from a random dy at the end."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(depth):
        convs = {k: layers.Conv(8, 8, 3, pad=1, rng=rng, dtype=np.float64) for k in "ab"}
        parts.append(make({"a": convs["a"], "relu": layers.ReLU(), "b": convs["b"]}))
    x = rng.standard_normal((1, 16, 16, 8))
    for part in parts:
        x = part.forward(x, training=True)
    dy, sizes = rng.standard_normal(x.shape), []
    for part in reversed(parts):
        dy = part.backward(dy)
        sizes.append(abs(dy).mean())
    return sizes[::-1]


chain, blocks = gradient_sizes(layers.Sequential), gradient_sizes(layers.Residual)
figure, axes = plt.subplots(figsize=(7, 3.5))
axes.semilogy(range(1, 21), chain, "o-", label="one after another")
axes.semilogy(range(1, 21), blocks, "o-", label="residual blocks")
axes.set_xlabel("part, from the first to the last")
axes.set_ylabel("mean |gradient|")
axes.set_xticks([1, 5, 10, 15, 20])
axes.legend()
plt.show()

# %% tags=["check"]
print(f"last to first, one after another: {chain[0] / chain[-1]:.1e}")
print(f"last to first, residual blocks: {blocks[0] / blocks[-1]:.2f}")

# %% [markdown]
# With norms in between the chain does not vanish so quickly, and five blocks are not twenty. But now you
# know why He and others could train networks of more than a hundred layers with shortcuts (2015), and why
# every network since has them.
#
# ## Exercise: the residual block
#
# Write the class. `layers` is a dict `{name: layer}`, in order; each has `forward(x, training)` and
# `backward(dy)`. The convolutions may have no padding. Then the result of the layers is smaller than `x`
# by `crop` pixels on each side, and $x$ must be cropped before it is added.


# %% tags=["exercise", "residual"]
class Residual:
    """y = layers(x) + x, with x cropped by `crop` on each side."""

    def __init__(self, layers, crop=0):
        raise NotImplementedError("not yet written")

    def forward(self, x, training=False):
        """x (N, H, W, C) -> y (N, H - 2*crop, W - 2*crop, C)."""
        raise NotImplementedError("not yet written")

    def backward(self, dy):
        """dy, as y -> dx, as x."""
        raise NotImplementedError("not yet written")


# %%
check("Residual", Residual)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Forward goes through `self.layers.values()`, backward through `reversed(self.layers.values())`. With
# `crop`, which pixels of $x$ does the shortcut not use, and what comes back to them on it?
#
# </details>
# <details><summary>Hint 2</summary>
#
# $dx = dy \cdot J$ from the layers, and then `dy` is added, but only to the inner part of `dx`:
# `dx[:, c : H - c, c : W - c] += dy`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# class Residual:
#     def __init__(self, layers, crop=0):
#         self.layers, self.crop = layers, crop
#
#     def inner(self, x):
#         c = self.crop
#         return x[:, c : x.shape[1] - c, c : x.shape[2] - c]
#
#     def forward(self, x, training=False):
#         y = x
#         for layer in self.layers.values():
#             y = layer.forward(y, training)
#         return y + self.inner(x)
#
#     def backward(self, dy):
#         dx = dy
#         for layer in reversed(self.layers.values()):
#             dx = layer.backward(dx)
#         self.inner(dx)[...] += dy
#         return dx
# ```
#
# </details>
#
# When it passes, keep it for lesson 13: `from tinynst import save; save("Residual", Residual)`.
#
# ## Do it large
#
# `print(style_net())` shows the paper's network, with transposed convolutions on the way up, and
# `print(VGG16.load())` the critic (lesson 8 counted its 14.7 million weights). How many products does the
# critic need for a photo of 256 x 256, and how many the painter? In training, who is the more expensive?
#
# ## What you have seen
#
# - The network goes down, works at a quarter of the size, and goes up again. For the same price it has
#   more channels, and it sees farther.
# - The **receptive field** can be computed from the table, or measured with the gradient of one pixel.
#   Through instance norm each pixel sees the whole photo.
# - A **residual block** is $F(x) + x$; backward, $dx = dy \cdot J + dy$. Five of them are 32 paths, whose
#   gradients add. A block can be switched off, and the painting is still there.
#
# **In the paper:** section 3.1, and Table 1 of the supplement. **In the library:** `networks/style.py`
# builds the network, `layers.py` holds `Residual`.
#
# **Next:** all parts are there. Train it.
