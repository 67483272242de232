# %% [markdown]
# # 4. Losses
#
# **After this lesson you can** derive the gradients of three losses for pictures, clean a noisy photo by
# walking down two of them, and say why a loss that compares pixels misleads.
#
# A network becomes good at what its loss asks for, and at nothing else. So before we build a network, we ask
# what "a good picture" should mean as one number. You need lessons 1 to 3. About 50 minutes.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, check, losses, show
from tinynst.data import images
from tinynst.samples import PHOTOS

# %% [markdown]
# ## Four ways to be wrong
#
# Here is a photo and four copies, each changed in another way. We will keep coming back to them.


# %%
def blur(x, rounds):
    """Replace each pixel by (1, 2, 1) / 4 of itself and its neighbours, down and across, some times."""
    for _ in range(2 * rounds):
        x = np.pad(x, ((1, 1), (0, 0), (0, 0)), mode="edge")
        x = (x[:-2] + 2 * x[1:-1] + x[2:]) / 4
        x = x.swapaxes(0, 1)
    return x


large = images.load(PHOTOS / "flower.jpg", size=136)
photo = large[4:132, 4:132]
noise = np.random.default_rng(0).normal(0, 10, photo.shape).astype(np.float32)
changed = {
    "shifted": large[4:132, 5:133],  # by one pixel
    "brighter": photo + 15,
    "blurred": blur(photo, 6),
    "noisy": photo + noise,
}

# %% [markdown]
# How wrong is each? The simplest answer is the mean of the squared differences, as in lesson 1. It is called
# the **pixel loss**. For a picture $y$ and a **target** $t$, the picture that we want, both of $H \times W$
# pixels with $C$ channels:
#
# $$L_\text{pixel}(y, t) = \frac{1}{C H W} \sum_{i} (y_i - t_i)^2$$


# %%
def pixel_loss(y, target):
    """The loss, and its gradient with respect to y."""
    difference = y - target
    return float(np.mean(difference**2)), 2 * difference / difference.size


wanted = pixel_loss(changed["shifted"], photo)[0]
for name, picture in changed.items():  # stretch each change until all pixel losses are equal
    strength = (wanted / pixel_loss(picture, photo)[0]) ** 0.5
    changed[name] = photo + strength * (picture - photo)

# %% tags=["check"]
for name, picture in changed.items():
    print(f"{name:9} pixel loss {pixel_loss(picture, photo)[0]:.1f}")

# %% [markdown]
# The shift by one pixel sets the value, and the strength of the other three was chosen so that **all four
# have the same pixel loss**.
#
# **Predict before you run:** how far may one blur the photo before it is "as wrong" as a shift by one pixel?

# %%
show(photo=photo, **changed, columns=5)

# %% [markdown]
# To the pixel loss these four are equally good. To you they are not. The shifted one is the same photo, and
# without the original beside it you would not notice. The brighter one is the same photo on another screen.
# The blurred one has lost all its petals' edges.
#
# In the shifted photo nearly every pixel has changed, since every edge now stands one pixel further. The
# pixel loss looks at each place alone and has no idea of an edge.
#
# ## The gradient of the pixel loss
#
# The function above returned its gradient already. Derive it. Only one term of the sum contains the number
# $y_i$, namely $(y_i - t_i)^2$. Call the difference $d$. If $y_i$ grows by $\epsilon$, so does $d$, and the
# slope of $d^2$ is $2d$. So
#
# $$\frac{\partial L}{\partial y_i} = \frac{2\,(y_i - t_i)}{C H W}$$
#
# The target is a constant: it gets no gradient. A step against this gradient moves each number towards its
# target, by the same share of the way everywhere.

# %% tags=["check"]
rng = np.random.default_rng(1)
y, target = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))


def compare(function, x):
    """Print one number of the gradient of function(x), and the same by differences."""
    gradient, place, h = function(x)[1], (1, 2, 3, 4), 1e-5
    plus, minus = x.copy(), x.copy()
    plus[place] += h
    minus[place] -= h
    by_differences = (function(plus)[0] - function(minus)[0]) / (2 * h)
    print(f"formula {gradient[place]:.6f}, differences {by_differences:.6f}")


compare(lambda y: pixel_loss(y, target), y)
value, gradient = losses.pixel_loss(y, target)
print(f"library: value {value:.6f}, gradient {gradient[1, 2, 3, 4]:.6f}")

# %% [markdown]
# (The library's arrays have four axes, `(N, H, W, C)`: N pictures at once. Its loss is the mean over the
# pictures, so it divides by $N$ too. That is the mean over *all* numbers, as in our function.)
#
# ## When nobody knows the answer, the pixel loss wants a blur
#
# There is a second problem, and it is worse. Often several pictures would be right. Think of a network that
# must enlarge a small photo: where exactly an edge lies cannot be known. Say the right answer is one of $K$
# pictures $t_1 \dots t_K$, each as likely as the others. The network must choose one $y$. Which $y$ has the
# lowest loss on average?
#
# At the lowest place, the gradient is zero (there is no way down any more). So, for each number of the
# picture,
#
# $$\frac{1}{K}\sum_k \frac{2\,(y - t_k)}{C H W} = 0
#   \quad\Rightarrow\quad K y = \sum_k t_k \quad\Rightarrow\quad y = \frac{1}{K}\sum_k t_k$$
#
# The best answer is the **mean of all possible answers**. Try it with the photo at 25 possible places, up to
# two pixels away from the middle.

# %% tags=["cover"]
possible = np.array([large[4 + i : 132 + i, 4 + j : 132 + j] for i in range(-2, 3) for j in range(-2, 3)])
mean = possible.mean(axis=0)
show(**{"one possible answer": possible[0], "best for the pixel loss": mean})

# %% tags=["check"]
to_all = lambda y: np.mean([pixel_loss(y, t)[0] for t in possible])  # noqa: E731
print(f"average loss of the mean:              {to_all(mean):.1f}")
print(f"average loss of a sharp, possible one: {np.mean([to_all(y) for y in possible]):.1f}")

# %% [markdown]
# The blurred picture has *half* the loss of a sharp one, although it is the only one of them that is
# certainly wrong. A network that is trained with the pixel loss learns exactly this. It is not too weak to
# paint an edge; it is punished for it.
#
# (Half is no accident. A guess $y$ misses $t$ by its own distance from the mean and by $t$'s distance from
# the mean. On average the squares add: variance plus variance for a random guess, variance plus nothing for
# the mean.)
#
# ## Compare what a network sees
#
# The paper's idea: do not compare pixels, compare what they *show*. Take VGG-16, a network that has been
# trained to tell a thousand kinds of objects apart. Its layers turn a picture into **features**: arrays $f$
# of shape $(H', W', C')$, in which each of the $C'$ channels says how strongly one pattern is present at each
# place. In the first layers the patterns are edges and colours, later eyes, petals, fur. (Lesson 8 looks
# inside. Here VGG is a function from a picture to features.)

# %%
vgg = VGG16.load()


def features(picture, layer):
    return vgg.forward(picture[None].astype(np.float32), layer, training=False)[layer]


for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"):
    print(layer, features(photo, layer).shape)

# %% [markdown]
# The **feature loss** (equation 2 of the paper) is the mean squared difference of the features:
#
# $$L_\text{feature}(y, t) = \frac{1}{C' H' W'} \left\| f(y) - f(t) \right\|^2$$
#
# The double bars mean: square all numbers and add them. VGG is never changed; it is a judge, not a pupil.
#
# **Predict before you run:** the four changes have the same pixel loss. Put them in order, from the worst to
# the best, as you think that VGG sees them.

# %% tags=["check"]
layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
seen = {name: [] for name in changed}
for layer in layers:
    target = features(photo, layer)
    for name, picture in changed.items():
        loss, _ = losses.feature_loss(features(picture, layer), target)
        seen[name].append(loss / np.mean(target**2))  # relative to the features themselves
for name, values in seen.items():
    print(f"{name:9}", " ".join(f"{layer} {value:.4f}" for layer, value in zip(layers, values, strict=True)))

# %%
figure, axes = plt.subplots(figsize=(8, 3.5))
for place, (name, values) in enumerate(seen.items()):
    axes.bar(np.arange(4) + 0.2 * place - 0.3, values, 0.2, label=name)
axes.set_xticks(range(4), layers)
axes.set_xlabel("layer of VGG-16")
axes.set_ylabel("feature loss, relative")
axes.set_title("the same pixel loss, seen by VGG")
axes.legend()
plt.show()

# %% [markdown]
# The brighter photo hardly counts: VGG looks for patterns, and they are all still there. The blurred one is
# the worst at every layer. The shift is punished in the first layers, which still look at small details at
# exact places, and matters less and less further in: at `relu4_3` one number stands for 8 x 8 pixels, and one
# pixel more or less is nothing. From `relu3_3` on, the order is close to that of the eye: blurred, noisy,
# shifted, brighter.
#
# And the question with many possible answers? Ask VGG about the mean and about the sharp pictures:

# %% tags=["check"]
layer = "relu3_3"
f_possible = np.concatenate([features(t, layer) for t in possible])
f_mean = features(mean, layer)
scale = np.mean(f_possible**2)
to_mean = np.mean((f_possible - f_mean) ** 2) / scale
among = np.mean([np.mean((f_possible - f) ** 2) for f in f_possible]) / scale
print(f"average feature loss of the mean:              {to_mean:.3f}")
print(f"average feature loss of a sharp, possible one: {among:.3f}")

# %% [markdown]
# The order has turned round. The pixel loss prefers the mean by a factor of two; the feature loss prefers a
# sharp picture at the wrong place to a mean that looks like none of them. This is why networks that are
# trained with it give sharp results (lesson 15).
#
# ## The gradient of the feature loss
#
# It has two parts, one after the other: picture $\to$ features $\to$ loss. The second is the pixel loss
# again, with features in place of pixels. As before, only one term contains $f_i$, so
#
# $$df_i = \frac{\partial L}{\partial f_i} = \frac{2\,(f_i - f_i(t))}{N C' H' W'}$$
#
# (with the $N$ of a mean over the batch). This is the upstream gradient for VGG. The first part is VGG's
# backward, which multiplies `df` with the Jacobian of VGG, without writing it down, and gives the gradient
# with respect to the pixels. So the loss itself needs no knowledge of VGG.
#
# ## Exercise: the feature loss
#
# Write a function that returns both, the value and the gradient with respect to `f`. Losses in this library
# have no cache: they are the end of the chain, and the value and its gradient are nearly the same work.


# %% tags=["exercise", "feature_loss"]
def feature_loss(f, target):
    """f and target: (N, H, W, C). Returns (value, a float; gradient with respect to f, (N, H, W, C)).

    The squared difference, over C, H and W, as a mean over the N pictures.
    """
    raise NotImplementedError("not yet written")


# %%
check("feature_loss", feature_loss)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("feature_loss", feature_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You need the difference twice. How many numbers does the mean go over?
#
# </details>
# <details><summary>Hint 2</summary>
#
# With $d = f - \text{target}$ and $n$ = `f.size` $= N C H W$: the value is $\sum d^2 / n$, the gradient
# $2 d / n$.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def feature_loss(f, target):
#     difference = f - target
#     return float(np.sum(difference**2)) / f.size, 2 * difference / f.size
# ```
#
# </details>
#
# Try mistakes, too: forget the 2, or divide by `f[0].size`.
#
# ## From the loss back to the pixels
#
# Now the whole chain, in float64 and with a small picture. We walk a little way $h$ in a random direction $r$
# through the space of all pictures. The slope in that direction must be $\sum_i dy_i\, r_i$.

# %% tags=["check"]
small = images.resize(photo, 32, 32)[None].astype(np.float64)
start = small + np.random.default_rng(2).normal(0, 20, small.shape)
target = vgg.forward(small, "relu3_3", training=False)["relu3_3"]


def from_pixels(y):
    f = vgg.forward(y, "relu3_3")["relu3_3"]
    value, df = losses.feature_loss(f, target)
    return value, vgg.backward({"relu3_3": df})


r, h = np.random.default_rng(3).normal(size=start.shape), 1e-6
slope = (from_pixels(start + h * r)[0] - from_pixels(start - h * r)[0]) / (2 * h)
print(f"backward through VGG: {np.sum(from_pixels(start)[1] * r):.4f}, differences: {slope:.4f}")

# %% [markdown]
# What do the two gradients say about the *blurred* photo? Both have one number for each value of each pixel,
# so that they can be drawn: grey is 0, bright means "less of it", dark means "more of it".

# %%
y = changed["blurred"]
_, by_pixels = pixel_loss(y, photo)
f = vgg.forward(y[None], "relu2_2")["relu2_2"]
_, df = losses.feature_loss(f, features(photo, "relu2_2"))
by_features = vgg.backward({"relu2_2": df})[0]
show(
    blurred=y,
    **{
        "gradient, pixels": 128 + 40 * by_pixels / by_pixels.std(),
        "gradient, features": 128 + 40 * by_features / by_features.std(),
    },
    columns=4,
)

# %% [markdown]
# The pixel loss asks for exactly what is missing, $y - t$, at every place. The feature loss asks for *edges*
# at roughly the right places. It does not know the target's pixels, only what VGG made of them. It also asks
# for a fine pattern that is not in the photo at all, which VGG happens to like.
#
# ## Total variation: a picture should be smooth
#
# A gradient through VGG is rough, and pictures that follow it become rough. So a third loss asks for nothing
# but smoothness. It needs no target. The **total variation** adds the squared differences of all neighbours,
# down and across:
#
# $$L_\text{TV}(y) = \frac12 \sum_{i,j} \left[ (y_{i+1,j} - y_{i,j})^2 + (y_{i,j+1} - y_{i,j})^2 \right]$$
#
# (for each channel; at the border, a neighbour that does not exist is left out).

# %% tags=["check"]
for name, picture in {"photo": photo, **changed}.items():
    print(f"{name:9} total variation {losses.tv_loss(picture[None].astype(np.float64))[0]:,.0f}")

# %% [markdown]
# The noisy photo has by far the most, the blurred one the least.
#
# To derive the gradient, take one difference $D = y_{i+1,j} - y_{i,j}$ and its term $\frac12 D^2$.
#
# - The slope of $\frac12 D^2$ with respect to $D$ is $D$.
# - If the lower pixel $y_{i+1,j}$ grows by $\epsilon$, so does $D$. The lower pixel receives $+D$.
# - If the upper pixel $y_{i,j}$ grows by $\epsilon$, $D$ *falls* by $\epsilon$. The upper pixel receives
#   $-D$.
# - Each pixel is part of up to four differences. Its gradient is the sum of what it receives: `+=`, since
#   paths meet.
#
# A pixel inside the picture receives $+D$ from the neighbours above and to the left, and $-D$ from those
# below and to the right. All together:
#
# $$\begin{aligned}dy &= (y - \text{above}) + (y - \text{left}) - (\text{below} - y) - (\text{right} - y) \\
#   &= 4y - \text{above} - \text{left} - \text{below} - \text{right}\end{aligned}$$
#
# That is four times "the pixel minus the mean of its neighbours". A step against it moves every pixel towards
# the mean of its neighbours. **To walk down the total variation is to blur.**

# %% tags=["check"]
y = rng.normal(size=(2, 4, 5, 6))
compare(losses.tv_loss, y)
i, j = 2, 3
by_hand = 4 * y[1, i, j] - y[1, i - 1, j] - y[1, i, j - 1] - y[1, i + 1, j] - y[1, i, j + 1]
print(f"by hand {by_hand[4] / 2:.6f} (divided by N = 2: the mean over the batch)")

# %% [markdown]
# ## Exercise: total variation
#
# No loop over pixels is needed: slices give all differences down at once, and all across.


# %% tags=["exercise", "tv_loss"]
def tv_loss(y):
    """y: (N, H, W, C). Returns (value, a float; gradient with respect to y, (N, H, W, C)).

    Half the sum of the squared differences of neighbours, as a mean over the N pictures.
    """
    raise NotImplementedError("not yet written")


# %%
check("tv_loss", tv_loss)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("tv_loss", tv_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which slice of `y` holds the lower pixel of each pair, and which the upper one? The same two slices of `dy`
# receive the differences.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `down = y[:, 1:] - y[:, :-1]`. Begin with `dy` all zeros. Then $+D$ for the lower pixels,
# `dy[:, 1:] += down`, and $-D$ for the upper ones, `dy[:, :-1] -= down`. The same across. Divide the value
# and `dy` by $N$.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def tv_loss(y):
#     down, across = y[:, 1:] - y[:, :-1], y[:, :, 1:] - y[:, :, :-1]
#     dy = np.zeros_like(y)
#     dy[:, 1:] += down
#     dy[:, :-1] -= down
#     dy[:, :, 1:] += across
#     dy[:, :, :-1] -= across
#     value = 0.5 * (np.sum(down**2) + np.sum(across**2))
#     return float(value) / len(y), dy / len(y)
# ```
#
# </details>
#
# ## A noisy photo, denoised
#
# Now two losses work against each other. Here is a photo with strong noise, as from a camera in the dark. We
# want a picture that is *near the noisy one* and *smooth*:
#
# $$E(y) = \tfrac12 \| y - \text{noisy} \|^2 + \lambda \, L_\text{TV}(y)$$
#
# The number $\lambda$ is a **weight**: it says how much smoothness is worth. The original photo does not
# occur here. We walk down $E$ as in lesson 1, and what moves is no parameter of a rule but the *picture
# itself*.


# %%
noisy = photo + 2.5 * noise


def denoise(noisy, weight, lr, steps):
    """Walk down E. Returns the picture, and E at every step."""
    y, values = noisy.copy(), []
    for _ in range(steps):
        tv, dtv = losses.tv_loss(y[None], weight)
        values.append(0.5 * float(np.sum((y - noisy) ** 2)) + tv)
        y = y - lr * ((y - noisy) + dtv[0])
    return y, values


denoised, values = denoise(noisy, weight=1.0, lr=0.2, steps=40)
show(noisy=noisy, denoised=denoised, photo=photo)

# %% tags=["check"]
print(f"E falls from {values[0]:,.0f} to {values[-1]:,.0f}")
print(f"pixel loss to the true photo: {pixel_loss(noisy, photo)[0]:.0f} before")
print(f"                              {pixel_loss(denoised, photo)[0]:.0f} after")

# %% [markdown]
# Noise has large differences between neighbours, and a photo has mostly small ones. That is all that the loss
# knows about photos, and it is enough to take away three quarters of the error.
#
# ## The learning rate, predicted
#
# Lesson 1: descent explodes above 2 / curvature. In which direction is $E$ curved most? For a checkerboard,
# where each pixel is the negative of its four neighbours, the gradient of the total variation is
# $4y + 4y = 8y$. So the curvature of $\lambda L_\text{TV}$ along a checkerboard is $8\lambda$, no pattern has
# more, and the other term adds 1. With $\lambda = 1$ the edge is at $2 / 9 = 0.222$.
#
# **Predict before you run:** what will the picture look like when the learning rate is a little too large,
# 0.25?

# %%
exploding, _ = denoise(noisy, weight=1.0, lr=0.25, steps=14)
exploding_more, _ = denoise(noisy, weight=1.0, lr=0.25, steps=18)
show(**{"lr 0.2": denoised, "lr 0.25, 14 steps": exploding, "lr 0.25, 18 steps": exploding_more}, columns=4)

# %% [markdown]
# The checkerboard itself. Each step overshoots in this direction, by a factor of $|1 - 0.25 \cdot 9| = 1.25$,
# while smooth patterns are long at rest.
#
# ## How much smoothness?
#
# With $\lambda = 0$ nothing changes; with a very large $\lambda$ the picture becomes one grey area. Here we
# know the true photo, so we can measure.

# %%
weights = [0.03, 0.1, 0.3, 0.6, 1, 2, 4, 10, 30]
pictures = [denoise(noisy, w, lr=1.8 / (1 + 8 * w), steps=150)[0] for w in weights]
errors = np.array([pixel_loss(y, photo)[0] for y in pictures])
f_photo = features(photo, "relu2_2")
f_errors = np.array([losses.feature_loss(features(y, "relu2_2"), f_photo)[0] for y in pictures])

figure, axes = plt.subplots(figsize=(7, 3.5))
axes.loglog(weights, errors / errors.min(), "o-", label="pixel loss to the true photo")
axes.loglog(weights, f_errors / f_errors.min(), "s-", label="feature loss (relu2_2) to the true photo")
axes.set_xlabel("weight of the total variation")
axes.set_ylabel("relative to the lowest")
axes.legend()
plt.show()

# %%
show(**{f"weight {w:g}": y for w, y in zip(weights, pictures, strict=True) if w in (0.1, 0.3, 1, 10)})

# %% [markdown]
# Both curves are a valley: too little smoothing leaves noise, too much destroys the petals. The feature loss
# finds its best picture at a somewhat smaller weight, since it minds a blur more than noise.
#
# Here is one row of pixels through the flower. The noise is gone, and so are the corners of the edges: a
# squared difference is a high price for a steep edge, and a low one for a long slope.

# %%
row = 70
figure, axes = plt.subplots(figsize=(8, 3.2))
axes.plot(noisy[row, :, 0], color="#cccccc", label="noisy")
axes.plot(photo[row, :, 0], label="true photo")
axes.plot(denoised[row, :, 0], label="denoised, weight 1")
axes.set_xlabel("column, pixels")
axes.set_ylabel("red, 0 to 255")
axes.legend()
plt.show()

# %% [markdown]
# (Other definitions of total variation take $|D|$ in place of $D^2$: one steep edge then costs no more than a
# long slope, and edges survive better. The squares are simpler, and enough for their small part here.)
#
# ## All together
#
# The painting network of this library follows a weighted sum: the feature loss, which keeps what the photo
# shows; the style loss of lesson 9; and a very little total variation (weight $10^{-6}$), against grain.
# Finding such weights is a large part of the work, and there is no formula for them.
#
# ## Do it large
#
# This cell needs a minute and a larger photo. Try your own, and look for the weight that pleases *you*; then
# compute which weight the pixel loss would have chosen.

# %%
# mine = images.load("my_photo.jpg", size=512)
# noisy = mine + np.random.default_rng(0).normal(0, 25, mine.shape).astype(np.float32)
# show(noisy=noisy, denoised=denoise(noisy, weight=0.6, lr=0.3, steps=40)[0], mine=mine)

# %% [markdown]
# ## What you have seen
#
# - A loss is a claim about what is good. The **pixel loss** finds a shift by one pixel as bad as a strong
#   blur, and where several answers are possible it wants their mean.
# - The **feature loss** compares what VGG sees. Its gradient is $2(f - f_t) / n$, then backward through VGG.
# - The gradient of the **total variation** is four times the pixel minus its neighbours; walking down it
#   blurs.
# - Losses are added with weights, and so are their gradients.
#
# **In the paper:** section 3.2, with equation 2 for the feature loss, and the pixel loss and the total
# variation as "simple loss functions"; equation 5 adds them up. **In the library:** `losses.py` holds
# `pixel_loss`, `feature_loss` and `tv_loss`; `StyleObjective` adds them.
#
# **Next:** the operation that VGG and the painting network are made of, convolution.
