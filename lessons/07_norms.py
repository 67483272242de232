# %% [markdown]
# # 7. Norms
#
# **After this lesson you can** derive the gradient of a normalisation in three steps, say what batch norm and
# instance norm take away, and change a painting's style with a few thousand numbers.
#
# About 50 minutes. You need lessons 1 and 2, and the convolution of lesson 5.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import check, gradcheck, load_style, ops, show, style_net
from tinynst.data import images
from tinynst.samples import PHOTOS


def square(name, size=96):
    """The middle of a photo, (size, size, 3)."""
    photo = images.load(PHOTOS / name, size=size)
    top, left = ((side - size) // 2 for side in photo.shape[:2])
    return photo[top : top + size, left : left + size]


cat, gate = square("chelsea.jpg"), square("brandenburg_gate.jpg")

# %% [markdown]
# ## Four pictures from one set of kernels
#
# The network below holds 1.7 million numbers. For all four paintings, its convolutions are *the same*. Only
# the numbers of its norms differ: 3,200 for each style.

# %% tags=["cover"]
net = load_style("gallery")
names = ("starry_night", "the_scream", "great_wave", "mondrian_1913")
show(**{name: net.forward(cat[None], style=name)[0] for name in names})

# %% [markdown]
# What is a norm, that it can do this? And how does a gradient get through it?
#
# ## Take the mean away, divide by the spread
#
# Take one channel of one picture: $M$ numbers $x_1 \dots x_M$. Their **mean** is $\mu$. Their **variance** is
# the mean of the squared distances from $\mu$, and its root $\sigma$, the **standard deviation** (std), is
# the usual distance from the mean:
#
# $$\mu = \frac{1}{M}\sum_i x_i, \qquad \sigma^2 = \frac{1}{M}\sum_i (x_i - \mu)^2$$
#
# To **normalise** means to take the mean away and to divide by the std. The result has mean 0 and variance 1:
#
# $$\hat x_i = \frac{x_i - \mu}{\sigma}$$
#
# A channel that is constant has $\sigma = 0$. So a tiny $\epsilon = 10^{-5}$ is added to the variance before
# the root.


# %%
def normalise(x, axes, eps=1e-5):
    """x with mean 0 and variance 1 over `axes`. Returns (normalised, std)."""
    mean = x.mean(axis=axes, keepdims=True)
    std = np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + eps)
    return (x - mean) / std, std


def visible(normalised):
    """Mean 0 and variance 1 as grey values around 128."""
    return 128 + 50 * normalised


# %% [markdown]
# **Predict before you run:** here are the cat, and the cat with a third of the contrast and in fog. What will
# be left of the difference after each has been normalised?

# %%
foggy = 0.33 * cat + 150
show(
    photo=cat,
    foggy=foggy,
    photo_normalised=visible(normalise(cat, (0, 1))[0]),
    foggy_normalised=visible(normalise(foggy, (0, 1))[0]),
)

# %% [markdown]
# Nothing. If every $x_i$ becomes $a x_i + c$ with a positive $a$, then $\mu$ becomes $a \mu + c$ and $\sigma$
# becomes $a \sigma$, and
#
# $$\frac{(a x_i + c) - (a \mu + c)}{a \sigma} = \frac{x_i - \mu}{\sigma}$$
#
# Contrast $a$ and brightness $c$ cancel. They are the two parameters that lesson 1 looked for in a dark
# photo. A norm takes them away without a search. Each colour has its own mean and std, so a colour cast goes
# as well: the warm light on the cat has gone.

# %% tags=["check"]
difference = abs(normalise(cat.astype(float), (0, 1))[0] - normalise(foggy.astype(float), (0, 1))[0]).max()
print(f"largest difference of the two: {difference:.4f}")

# %% [markdown]
# ## Why a network wants this
#
# **For learning.** After a norm, the numbers of every layer have the same size, whatever the kernels before
# it did. Steps that suit one layer suit the next. (Lesson 1: a learning rate that is right for one direction
# may be far too large for another.)
#
# **For painting.** The strokes of a painting have the contrast of the *painting*. A photo in fog should be
# painted as boldly as one in sunshine. Without norms, the network would have to learn this from examples.
# With an instance norm behind the first convolution, it cannot help it.
#
# **Predict before you run:** how much will the paintings of the clear and of the foggy cat differ?

# %%
net.style = net.mixture("starry_night")
clear, fog = (net.forward(x[None])[0] for x in (cat, foggy))
show(photo=cat, painted=clear, foggy=foggy, foggy_painted=fog)

# %% tags=["check"]
print(f"mean difference of the photos:    {abs(cat - foggy).mean():.1f} grey levels")
print(f"mean difference of the paintings: {abs(clear - fog).mean():.1f} grey levels")

# %% [markdown]
# They are the same painting. The first layer is a convolution, which is linear: a photo $a x + c$ gives
# $a\,(w * x)$ plus one constant for each channel. (Reflection padding keeps this true at the border; zeros
# would not.) The norm behind it takes $a$ and the constant away.
#
# ## Forget it, then choose it: gamma and beta
#
# Mean 0 and variance 1 is a start, but not always what the next layer needs. So each channel gets two
# parameters that are learnt, a new contrast $\gamma$ (**gamma**) and a new brightness $\beta$ (**beta**):
#
# $$y_i = \gamma\, \hat x_i + \beta$$
#
# At the start of training $\gamma = 1$ and $\beta = 0$. What do they do? Behind the norm comes ReLU, which
# cuts off what is below 0. So $\beta$ says *how often* a feature fires, and $\gamma$ *how strongly*. Here
# they work on the edges of a photo:

# %%
grey = gate.mean(axis=2)
edges = normalise(grey[:-1] - grey[1:], (0, 1))[0]
pictures = {}
for gamma, beta in ((1, 0), (1, 1), (1, -1), (2, -1)):
    pictures[f"gamma = {gamma}, beta = {beta}"] = 60 * np.maximum(gamma * edges + beta, 0)
show(**pictures)

# %% [markdown]
# Rare or common, faint or strong: the network has thousands of features, and how often each fires and how
# strongly is just what the Gram matrix of lesson 9 will measure as *style*. That is why so few numbers can
# choose a style.
#
# ## The numbers of a shipped style
#
# The gallery has 14 rows of $\gamma$ and $\beta$ in each of its norms: 13 paintings, and one row that gives
# the photo back. Training used one row for each painting and the same kernels for all.

# %%
norms = {name: array for name, array in net.parameters().items() if "norm" in name}
row = {name: array[net.styles.index("starry_night")] for name, array in norms.items()}
print(f"{len(row)} arrays, {sum(array.size for array in row.values()):,} numbers for one style")
other = {name: array[net.styles.index("the_scream")] for name, array in norms.items()}
key = "residual3.norm1"
figure, axes = plt.subplots(figsize=(5, 4))
axes.scatter(row[f"{key}.gamma"], row[f"{key}.beta"], s=12, label="The Starry Night")
axes.scatter(other[f"{key}.gamma"], other[f"{key}.beta"], s=12, label="The Scream")
axes.set_xlabel("gamma")
axes.set_ylabel("beta")
axes.set_title(f"the 128 channels of {key}")
axes.legend()
plt.show()

# %% [markdown]
# A channel with a small $\gamma$ hardly sees the photo in that painting. Now change the numbers. We write
# another row into the network: that of The Starry Night, with some arrays taken from The Scream.
#
# **Predict before you run:** which do you expect to matter more, the gammas or the betas? The layers at the
# beginning or those at the end?


# %%
def paint_with(numbers, photo=cat):
    """Put these gammas and betas in the first row of the net, paint, and restore the row."""
    kept = {name: array[0].copy() for name, array in norms.items()}
    for name, array in norms.items():
        array[0] = numbers[name]
    painted = net.forward(photo[None], style=0)[0]
    for name, array in norms.items():
        array[0] = kept[name]
    return painted


def exchanged(part):
    """The Starry Night's numbers, but The Scream's where the name contains one of `part`."""
    return {name: (other if any(p in name for p in part) else row)[name] for name in row}


show(
    starry_night=paint_with(row),
    gammas_of_the_scream=paint_with(exchanged(["gamma"])),
    betas_of_the_scream=paint_with(exchanged(["beta"])),
    the_scream=paint_with(other),
)

# %%
show(
    first_layers=paint_with(exchanged(["conv"])),
    residual_blocks=paint_with(exchanged(["residual"])),
    last_layers=paint_with(exchanged(["up"])),
)

# %% [markdown]
# With the gammas of The Scream the strokes become broad, with its betas the colours turn warm, and neither is
# The Scream: gammas and betas were trained together. The last layers hold most of the colour, the middle ones
# much of the strokes, the first ones little. And a row *between* two rows is a style between two styles:

# %%
mixed = {}
for share in (0.25, 0.5, 0.75):
    mixed[f"{share:.0%} The Scream"] = paint_with({k: (1 - share) * row[k] + share * other[k] for k in row})
show(**mixed)

# %% [markdown]
# (How to do it large: `size=384` for `square` in the first cell, or in a shell
# `tinynst stylize your.jpg --style "starry_night:0.5 the_scream:0.5"`. Lesson 14 learns a row for your own
# painting.)
#
# ## The gradient: who depends on whom
#
# Now backward. Given $dy_i$ for every pixel, we look for $dx_i$, $d\gamma$ and $d\beta$. The last two are
# quick: $\beta$ is added to every pixel, and $\gamma$ is multiplied with $\hat x_i$ at every pixel. Where
# paths meet, slopes add:
#
# $$d\beta = \sum_i dy_i, \qquad d\gamma = \sum_i dy_i\, \hat x_i$$
#
# For $dx$ one must take care. Change *one* pixel of the input. Then $\mu$ and $\sigma$ change, and with them
# *every* pixel of the output:

# %%
rng = np.random.default_rng(0)
signal = np.array([3.0, 5.0, 4.0, 8.0, 2.0, 6.0, 7.0, 1.0])
raised = signal.copy()
raised[3] += 3
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for panel, title, f in zip(
    axes, ("x", "normalised x"), (lambda v: v, lambda v: normalise(v, 0)[0]), strict=True
):
    panel.plot(f(signal), "o-", label="before")
    panel.plot(f(raised), "o--", label="pixel 3 raised by 3")
    panel.set_title(title)
    panel.set_xlabel("pixel")
axes[0].legend()
plt.show()

# %% [markdown]
# All others have moved, some more and some less, though only pixel 3 was touched. So there are **three ways**
# from $x_i$ to the loss:
#
# ```
#  x_i ──────────────────────────►  x^_i ──► y_i ──► loss       1. directly
#  x_i ──► mean ─────────────────►  every x^_j ────► loss       2. through the mean
#  x_i ──► variance ──► std ─────►  every x^_j ────► loss       3. through the std
# ```
#
# We follow them one by one, and add. First the step that all share: $y_i = \gamma \hat x_i + \beta$, so what
# arrives at $\hat x_i$ is
#
# $$g_i = \gamma\, dy_i$$
#
# ## Way 1: directly
#
# Hold $\mu$ and $\sigma$ fixed. Then $\hat x_i = (x_i - \mu) / \sigma$ has the slope $1 / \sigma$ with
# respect to $x_i$:
#
# $$\text{way 1:} \qquad \frac{g_i}{\sigma}$$
#
# ## Way 2: through the mean
#
# *From the loss to $\mu$.* Every $\hat x_j$ uses $\mu$, with the slope $-1/\sigma$. All of them add:
#
# $$d\mu = -\frac{1}{\sigma} \sum_j g_j$$
#
# (Does $\sigma$ not depend on $\mu$ as well? The slope of $\frac{1}{M}\sum_j (x_j - \mu)^2$ with respect to
# $\mu$ is $-\frac{2}{M} \sum_j (x_j - \mu)$, and the distances from a mean always add to 0. So that way is
# closed.)
#
# *From $\mu$ to $x_i$.* The mean is $\frac{1}{M} \sum_i x_i$: if $x_i$ grows by a little, $\mu$ grows by
# $1/M$ of that. So
#
# $$\text{way 2:} \qquad d\mu \cdot \frac{1}{M} = -\frac{1}{\sigma} \cdot \frac{1}{M}\sum_j g_j =
# -\frac{1}{\sigma}\,\text{mean}(g)$$
#
# ## Way 3: through the std
#
# *From the loss to $\sigma$.* Every $\hat x_j = (x_j - \mu)\,\sigma^{-1}$ uses $\sigma$. The derivative of
# $\sigma^{-1}$ is $-\sigma^{-2}$:
#
# $$d\sigma = \sum_j g_j \cdot \left(-\frac{x_j - \mu}{\sigma^2}\right) = -\frac{1}{\sigma}\sum_j g_j\,
# \hat x_j$$
#
# *From $\sigma$ to the variance $v$.* $\sigma = \sqrt{v + \epsilon}$ has the slope $\frac{1}{2\sigma}$.
#
# *From $v$ to $x_i$.* $v = \frac{1}{M}\sum_i (x_i - \mu)^2$ has the slope $\frac{2}{M}(x_i - \mu)$.
#
# Multiply the three. The 2 cancels, and $(x_i - \mu)/\sigma$ is $\hat x_i$ again:
#
# $$\text{way 3:} \quad
#   -\frac{1}{\sigma}\sum_j g_j \hat x_j \cdot \frac{1}{2\sigma} \cdot \frac{2}{M}(x_i - \mu)
#   = -\frac{1}{\sigma}\, \hat x_i\, \text{mean}(g\,\hat x)$$
#
# ## The closed form
#
# $$dx_i = \frac{1}{\sigma}\Big( g_i - \text{mean}(g) - \hat x_i\, \text{mean}(g\, \hat x) \Big)$$
#
# Three terms for three ways, and each is one line of NumPy. Add them one after the other, and compare with
# differences each time:


# %%
def three_ways(g, x_hat, std, axes):
    mean = lambda v: v.mean(axis=axes, keepdims=True)  # noqa: E731
    return g / std, -mean(g) / std * np.ones_like(g), -x_hat * mean(g * x_hat) / std


x = rng.normal(3, 2, size=(2, 5, 7, 3))
g = rng.normal(size=x.shape)
ways = three_ways(g, *normalise(x, (1, 2)), (1, 2))

# %% tags=["check"]
by_differences, h = np.zeros_like(x), 1e-5
for place in np.ndindex(x.shape):
    for sign in (1, -1):
        moved = x.copy()
        moved[place] += sign * h
        by_differences[place] += sign * np.sum(normalise(moved, (1, 2))[0] * g) / (2 * h)
total, largest = 0, abs(by_differences).max()
for name, way in zip(("directly", "+ through the mean", "+ through the std"), ways, strict=True):
    total = total + way
    error = np.round(abs(total - by_differences).max() / largest, 6)
    print(f"{name:20} largest error {error:.4f} of the largest gradient")
library, _, _ = ops.instance_norm_backward(g, ops.instance_norm(x, np.ones(3), np.zeros(3))[1])
print(f"{'against the library':20} largest difference {np.round(abs(total - library).max(), 9):.4f}")

# %% [markdown]
# Only all three are right. But note how near the first one comes, with a random gradient and 35 pixels in a
# channel: 15 percent. With such an error the loss may well fall, only less than it could, and nobody would
# know why. That is why gradients are checked.
#
# ## What the two terms are for
#
# There is a second way to see the formula. Adding a constant to all $x_i$ changes nothing in $y$. So the
# gradient may not have a part in that direction: the sum of all $dx_i$ must be 0. Scaling $x$ changes nothing
# either, so the sum of $dx_i \hat x_i$ must be 0, too (nearly, because of $\epsilon$). Look what each term
# does to these two sums:

# %% tags=["check"]
x_hat, _ = normalise(x, (1, 2))
total = 0
for name, way in zip(("directly", "+ mean", "+ std"), ways, strict=True):
    total = total + way
    sums = np.round([total[0, :, :, 0].sum(), (total * x_hat)[0, :, :, 0].sum()], 3) + 0.0
    print(f"{name:9} sum of dx: {sums[0]:7.3f}   sum of dx * x^: {sums[1]:7.3f}")

# %% [markdown]
# The second term takes out of $g$ its part along the constant, the third its part along $\hat x$. Forward
# takes brightness and contrast out of the picture, and backward takes the same two out of the gradient.
#
# In a picture: let the loss be the value of one output pixel, so that $g$ is 1 there and 0 elsewhere. Who
# gets a gradient?

# %%
row_of_pixels = grey[48, ::4]
one = np.zeros_like(row_of_pixels)
one[5] = 1.0
ways_1d = three_ways(one, *normalise(row_of_pixels, 0), 0)
figure, axes = plt.subplots(2, 1, figsize=(8, 4.5), sharex=True, layout="constrained")
axes[0].plot(row_of_pixels, ".-", color="gray")
axes[0].set_ylabel("x (grey levels)")
for name, way in zip(("directly", "through the mean", "through the std"), ways_1d, strict=True):
    axes[1].plot(way, ".-", label=name)
axes[1].set_xlabel("pixel")
axes[1].set_ylim(-0.007, 0.007)
axes[1].set_ylabel("share of dx")
axes[1].legend()
plt.show()

# %% [markdown]
# The peak, which leaves the frame, is way 1: the pixel itself. Way 2 is the same for all. Way 3 has the shape
# of the picture, upside down: to raise this bright pixel relative to the std, make the other bright ones less
# bright.
#
# ## Exercise: instance norm
#
# Normalise each channel of *each image* on its own: the $M$ numbers are all pixels of one image, so the means
# go over the axes 1 and 2. This is **instance norm** (Ulyanov, Vedaldi and Lempitsky, 2016). But `gamma` and
# `beta` are one for each channel, for all images.
#
# Shapes, for example: x (3, 5, 7, 2), gamma (2,), beta (2,) gives y (3, 5, 7, 2). Derive before you write:
# close your eyes and name the three ways.


# %% tags=["exercise", "instance_norm"]
def instance_norm(x, gamma, beta, eps=1e-5):
    """Normalise x (N, H, W, C) with gamma, beta (C,). Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta."""
    raise NotImplementedError("not yet written")


# %%
check("instance_norm", instance_norm, instance_norm_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("instance_norm", instance_norm, instance_norm_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `mean(axis=(1, 2), keepdims=True)` keeps shapes that can be multiplied with x again. Backward needs only
# $\hat x$, $\sigma$ and $\gamma$. In `dgamma` and `dbeta`, the parameter is used in every image.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With g = gamma * dy and means over axes 1 and 2: dx = (g - mean(g) - x_hat * mean(g * x_hat)) / std. dgamma
# and dbeta are sums over axes 0, 1 and 2.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def instance_norm(x, gamma, beta, eps=1e-5):
#     mean = x.mean(axis=(1, 2), keepdims=True)
#     std = np.sqrt(x.var(axis=(1, 2), keepdims=True) + eps)
#     x_hat = (x - mean) / std
#     return gamma * x_hat + beta, (x_hat, std, gamma)
#
#
# def instance_norm_backward(dy, cache):
#     x_hat, std, gamma = cache
#     g = gamma * dy
#     mean_g = g.mean(axis=(1, 2), keepdims=True)
#     mean_gx = (g * x_hat).mean(axis=(1, 2), keepdims=True)
#     dx = (g - mean_g - x_hat * mean_gx) / std
#     return dx, (dy * x_hat).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))
# ```
#
# </details>
#
# Here is what the checker says to somebody who forgot the way through the std:


# %%
def forgot_the_std(dy, cache):
    x_hat, std, gamma = cache
    g = gamma * dy
    dx = (g - g.mean(axis=(1, 2), keepdims=True)) / std
    return dx, (dy * x_hat).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))


def forward(x, gamma, beta):
    x_hat, std = normalise(x, (1, 2))
    return gamma * x_hat + beta, (x_hat, std, gamma)


gradcheck(forward, forgot_the_std, (x, rng.normal(size=3), rng.normal(size=3)))

# %% [markdown]
# ## Batch norm: one mean for all images
#
# The older **batch norm** (Ioffe and Szegedy, 2015) takes one mean and one std for each channel over the
# *whole batch*: the $M$ numbers are all pixels of all images, axes 0, 1 and 2. Nothing else in the formula
# changes. But look what it means for two photos:

# %%
batch = np.stack([gate, 0.4 * cat + 10])  # a bright photo and a dark one
by_batch, by_instance = normalise(batch, (0, 1, 2))[0], normalise(batch, (1, 2))[0]
show(
    bright=batch[0],
    bright_batch_norm=visible(by_batch[0]),
    bright_instance_norm=visible(by_instance[0]),
    dark=batch[1],
    dark_batch_norm=visible(by_batch[1]),
    dark_instance_norm=visible(by_instance[1]),
    columns=3,
)

# %% [markdown]
# Batch norm (in the middle) keeps the difference between the photos: the dark one stays dark and flat.
# Instance norm (right) takes it away. To tell cats from dogs, it may help to know which photo of a batch is
# darker. To paint, it does not.
#
# Batch norm also couples the images. **Predict before you run:** the loss depends only on image 0. Does image
# 1 get a gradient?

# %% tags=["check"]
dy = rng.normal(size=x.shape)
dy[1] = 0
ones, zeros = np.ones(3), np.zeros(3)
_, batch_cache = ops.batch_norm(x, ones, zeros, zeros.copy(), ones.copy())
_, instance_cache = ops.instance_norm(x, ones, zeros)
for name, dx in (
    ("batch norm", ops.batch_norm_backward(dy, batch_cache)[0]),
    ("instance norm", ops.instance_norm_backward(dy, instance_cache)[0]),
):
    print(f"{name:13} mean |dx| of image 0: {abs(dx[0]).mean():.4f}, of image 1: {abs(dx[1]).mean():.4f}")

# %% [markdown]
# ## Running statistics
#
# So the result for a photo depends on its company. In training that is only noise. But later a photo comes
# alone, and its painting must not depend on who else uses the program. So batch norm keeps **running
# statistics**: after each batch in training,
#
# $$\text{running} \leftarrow 0.9 \cdot \text{running} + 0.1 \cdot \text{the batch's}$$
#
# for the mean and for the variance. When training is over, these are used in place of the batch's, and they
# are constants. Then ways 2 and 3 are closed, and $dx = \gamma\, dy / \sigma$.
#
# Start at mean 0 and variance 1, and show it batches of four photos (one colour channel, values 0 to 1):

# %%
files = sorted(PHOTOS.glob("*.jpg"))
photos = np.stack([square(file, 64) for file in files]).astype(float) / 255
running_mean, running_var = np.zeros(3), np.ones(3)
history, own = [], []
for _ in range(60):
    chosen = photos[rng.choice(len(photos), 4, replace=False)]
    ops.batch_norm(chosen, ones, zeros, running_mean, running_var)  # changes both in place
    history.append((running_mean[0], running_var[0]))
    own.append((chosen[..., 0].mean(), chosen[..., 0].var()))

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for k, name in enumerate(("mean", "variance")):
    axes[k].plot([v[k] for v in own], ".", label="of each batch")
    axes[k].plot([v[k] for v in history], label="running")
    axes[k].axhline([photos[..., 0].mean(), photos[..., 0].var()][k], color="gray", label="of all photos")
    axes[k].set_xlabel("batch")
    axes[k].set_ylabel(f"{name} of red")
axes[0].legend()
plt.show()

# %% [markdown]
# After some 40 batches the start is forgotten. (Compare the two means in Adam, lesson 12, which correct for
# their start. Nobody does here.)
#
# One trap: the batch is a *sample* of all photos, and the spread around a sample's own mean is a little too
# small. With $M$ numbers, the variance is on average too small by $\frac{M-1}{M}$. The convention, as in
# PyTorch: $y$ is made with the variance divided by $M$, the running variance learns the one divided by
# $M - 1$.
#
# ## The same painter with batch norm
#
# No network with batch norm ships for painting, but we can make one. We take the kernels and the row of The
# Starry Night, put them in a network with batch norm, and let it collect its running statistics from photos.
# Only the source of mean and std is different.

# %%
batch_net = style_net(norm="batch", upsample="smooth", padding="each")
kernels = {name: array for name, array in net.parameters().items() if "norm" not in name}
batch_net.load({**kernels, **row, **batch_net.buffers()})
for _ in range(40):
    chosen = photos[rng.choice(len(photos), 2, replace=False)]
    batch_net.forward((255 * chosen).astype(np.float32), training=True)

# %% [markdown]
# **Predict before you run:** the clear and the foggy cat once more. What will this network make of the fog?

# %%
alone, alone_fog = (batch_net.forward(each[None])[0] for each in (cat, foggy))
show(photo=cat, batch_norm=alone, foggy=foggy, foggy_batch_norm=alone_fog)

# %% [markdown]
# The contrast of the *photo* has reached the painting: the fog is still there. (The comparison is a little
# unfair, since these kernels were trained with instance norm. A network trained with batch norm learns to
# live with it, and paints well, but it has to learn contrast by examples.) The paper used batch norm;
# instance norm was published a few months later. The authors' code then offered both, and this library's
# painters all use instance norm.
#
# ## Exercise: batch norm
#
# In training: normalise over axes 0, 1 and 2, and update `running_mean` and `running_var` **in place**
# (`running_mean *= ...`, then `+= ...`), so that the caller sees it. Otherwise: use them, and do not change
# them.


# %% tags=["exercise", "batch_norm"]
def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    """Normalise x (N, H, W, C); gamma, beta and the running statistics are (C,). Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def batch_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta."""
    raise NotImplementedError("not yet written")


# %%
check("batch_norm", batch_norm, batch_norm_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("batch_norm", batch_norm, batch_norm_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two variances: one for y, one for `running_var`. Remember in the cache whether it was training: it decides
# which ways are open.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With M = x.size / C: `running_var *= 1 - momentum`, then `running_var += momentum * var * M / (M - 1)`. In
# training dx = (g - mean(g) - x_hat * mean(g * x_hat)) / std with g = gamma * dy and means over axes 0, 1, 2;
# otherwise dx = g / std.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
#     mean, var = running_mean, running_var
#     if training:
#         mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
#         m = x.size // x.shape[3]
#         running_mean *= 1 - momentum
#         running_mean += momentum * mean
#         running_var *= 1 - momentum
#         running_var += momentum * var * m / (m - 1)
#     std = np.sqrt(var + eps)
#     x_hat = (x - mean) / std
#     return gamma * x_hat + beta, (x_hat, std, gamma, training)
#
#
# def batch_norm_backward(dy, cache):
#     x_hat, std, gamma, training = cache
#     g = dx = gamma * dy
#     if training:
#         dx = g - g.mean(axis=(0, 1, 2)) - x_hat * (g * x_hat).mean(axis=(0, 1, 2))
#     return dx / std, (dy * x_hat).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))
# ```
#
# </details>
#
# ## What you have seen
#
# - A norm takes **contrast and brightness** away; gamma and beta put in what the network wants.
# - Mean and std depend on every pixel, so a gradient has **three ways** back: directly, through the mean,
#   through the std. The last two take from the gradient what the norm took from the picture.
# - **Instance norm** works on each image, **batch norm** on the whole batch. Batch norm needs running
#   statistics, and lets a photo's contrast through.
# - A style of the gallery is 3,200 gammas and betas. Mix them, and the styles mix.
#
# **In the paper:** the supplement's Tables 1 and 2; every convolution but the last is followed by a norm
# (there: batch norm). **In the library:** `ops/norms.py` holds both, and `conditional_instance_norm` for
# several styles; `ops/fast/norms.py` computes the same numbers faster.
#
# **Next:** what does the critic, VGG-16, see in a photo?
