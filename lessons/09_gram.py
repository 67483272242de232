# %% [markdown]
# # 9. Style is a Gram matrix
#
# **After this lesson you can** say in numbers how a painting is painted, derive the gradient of these
# numbers, and paint Starry Night without a scene, from noise.
#
# Lesson 4 compared *what* two pictures show, place by place. A painting's style is something else: it is the
# same in every corner. You need lessons 1 to 4; VGG is used here as a function from a picture to features.
# About 50 minutes.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, check, losses, ops, show
from tinynst.data import images
from tinynst.losses import StyleObjective
from tinynst.samples import STYLES
from tinynst.tools.optimize import descend, noise

# %% [markdown]
# ## Which belong together?
#
# Here are eight squares, two from each of four paintings: one from its left side and one from its right. They
# do not overlap.
#
# **Predict before you run the cells below:** which are pairs? And how did you know, with hardly an object in
# common?

# %%
names = ("starry_night", "pere_tanguy", "langlois_bridge", "harvest_at_la_crau")
squares = []
for name in names:
    painting = images.load(STYLES / f"{name}.jpg", size=176)
    top = (len(painting) - 88) // 2
    squares += [painting[top : top + 88, :88], painting[top : top + 88, -88:]]
order = (0, 5, 2, 7, 4, 3, 6, 1)
show(**{f"square {k}": squares[k] for k in order})

# %% [markdown]
# (The pairs are 0 and 1, 2 and 3, 4 and 5, 6 and 7.)
#
# Most people find them by the colours, the direction and length of the strokes, and how they are mixed.
# Nothing of that has a *place*. We need a loss that forgets places and keeps the rest.
#
# ## What happens together
#
# A layer of VGG gives features $f$ of shape $(H, W, C)$: at each of $H \times W$ places, $C$ numbers that say
# how strongly $C$ patterns are present there. Put the places one below the other, and $f$ is a table $F$ with
# $HW$ rows and $C$ columns.
#
# One could forget the places by taking the mean of each column: how much blue, how many curved edges. But a
# style is not "some blue and some curves". It is *blue curves*. What counts is which features are large **at
# the same place**.
#
# Here are two pictures of $3 \times 3$ places with two features each, "blue" and "curved". White is 1 and
# black is 0. Both features have the same mean in both pictures.

# %%
blue = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 0]], float)
curved_there = blue.copy()
curved_elsewhere = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], float)
show(
    **{"blue": 255 * blue, "curved (A)": 255 * curved_there, "curved (B)": 255 * curved_elsewhere}, columns=5
)

# %% tags=["check"]
for name, curved in (("A", curved_there), ("B", curved_elsewhere)):
    together = np.mean(blue * curved)
    print(f"{name}: mean of blue {blue.mean():.2f}, of curved {curved.mean():.2f}, product {together:.2f}")

# %% [markdown]
# The mean of the *product* tells them apart. It is large if both are large at the same places, and zero if
# they avoid each other. Do this for every pair of features:
#
# $$G_{ab} = \frac{1}{C H W} \sum_{p} F_{pa}\, F_{pb}$$
#
# where $p$ runs over all places. This is equation 3 of the paper. The table $G$ of $C \times C$ numbers is
# called the **Gram matrix**. On its diagonal stands how strong each feature is; elsewhere, what happens
# together. It is symmetric: $G_{ab} = G_{ba}$.
#
# A sum of products over a common index is a matrix product, $(F^T)_{ap} F_{pb}$:
#
# $$G = \frac{1}{C H W} F^T F$$

# %% tags=["check"]
f = np.random.default_rng(0).normal(size=(1, 4, 5, 3))
F = f.reshape(20, 3)
G = F.T @ F / (3 * 4 * 5)
one_by_one = sum(f[0, i, j, 0] * f[0, i, j, 2] for i in range(4) for j in range(5)) / (3 * 4 * 5)
print(f"matrix product {G[0, 2]:.6f}, loop {one_by_one:.6f}, library {ops.gram_matrix(f)[0][0, 0, 2]:.6f}")

# %% [markdown]
# Here are two real ones, from the second layer of VGG with its 64 features. The first two squares are of one
# painting, the third is of another.

# %%
LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
vgg = VGG16.load()


def features(picture):
    return vgg.forward(np.ascontiguousarray(picture[None]), LAYERS, training=False)


def grams(picture):
    return {layer: ops.gram_matrix(f)[0][0] for layer, f in features(picture).items()}


figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for k, axis in zip((0, 1, 2), axes, strict=True):
    axis.imshow(np.sqrt(grams(squares[k])["relu1_2"]), cmap="magma")
    axis.set_title(f"square {k}: {names[k // 2]}")
    axis.set_xlabel("feature b")
axes[0].set_ylabel("feature a")
plt.show()

# %% [markdown]
# (Drawn is the square root, so that small values can be seen.) Bright lines are features that are strong
# everywhere. How many numbers is a style, in all four layers that the paper uses? Each matrix is symmetric,
# so half of it and the diagonal suffice:

# %% tags=["check"]
channels = {layer: f.shape[3] for layer, f in features(squares[0]).items()}
print(channels, f"{sum(c * (c + 1) // 2 for c in channels.values()):,} numbers")

# %% [markdown]
# As many for a stamp as for a wall: the size of the picture does not occur.
#
# ## A distance of styles
#
# The difference of two styles is the difference of their Gram matrices. Take all squared differences and add
# them:
#
# $$L_\text{style} = \| G(y) - G(t) \|_F^2 = \sum_{a,b} \left( G_{ab}(y) - G_{ab}(t) \right)^2$$
#
# That is equation 4. (The $F$ stands for Frobenius: all entries squared and added.) For a fair comparison of
# four layers with numbers of very different sizes, we divide by the sizes of both. Let us see which squares
# belong together, by style and by the feature loss of lesson 4.


# %%
def distance(one, other):
    """Mean over the layers of ||a - b||^2 / (||a|| ||b||)."""
    pairs = [(one[layer], other[layer]) for layer in LAYERS]
    return np.mean([np.sum((a - b) ** 2) / np.sqrt(np.sum(a**2) * np.sum(b**2)) for a, b in pairs])


def table(described):
    return np.array([[distance(a, b) for b in described] for a in described])


by_features = table([features(square) for square in squares])
by_style = table([grams(square) for square in squares])
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for axis, (title, values) in zip(axes, {"features": by_features, "style": by_style}.items(), strict=True):
    axis.imshow(values / values.max(), cmap="viridis")
    axis.set_title(f"distance by {title}")
    axis.set_xlabel("square")
    axis.set_ylabel("square")
plt.show()

# %% tags=["check"]
for title, values in (("features", by_features), ("style", by_style)):
    nearest = np.argsort(values + 1e9 * np.eye(8), axis=1)[:, 0]
    partner = np.arange(8) ^ 1  # 0 and 1, 2 and 3, ...
    to_partner = values[np.arange(8), partner].mean()
    print(f"by {title:8} the nearest square is the partner for {np.sum(nearest == partner)} of 8;", end=" ")
    print(f"mean distance to the partner {to_partner:.2f}, to all {values.sum() / 56:.2f}")

# %% [markdown]
# Both find the pairs, but look how clearly. By features the partner is only a little nearer than all the
# others, since hardly anything stands at the same place in both squares. By style, its distance is about a
# third, and the dark blocks on the diagonal are the paintings.
#
# ## What it forgets
#
# **Predict before you run:** we put the rows of $F$ into random order, so that every place of the picture
# gets the features of another. What happens to $G$?

# %% tags=["check"]
f = features(squares[0])["relu3_3"].astype(np.float64)
rows = f.reshape(1, -1, 1, f.shape[3])
shuffled = np.random.default_rng(1).permutation(rows, axis=1)
G, G_shuffled = ops.gram_matrix(rows)[0], ops.gram_matrix(shuffled)[0]
print(f"features differ by up to {abs(rows - shuffled).max():.1f}")
print("Gram matrices equal:", np.allclose(G, G_shuffled, rtol=1e-12))

# %% [markdown]
# Nothing. A sum does not depend on the order of its terms. All places, all objects, all of the scene are
# forgotten, *exactly*.
#
# It also does not matter how many places there are, since the division by $HW$ makes $G$ a mean. So a
# painting of any size can judge a picture of any other size.
#
# But be careful: we shuffled *features*, not pixels. A feature at `relu3_3` looks at a patch of 40 x 40
# pixels, and what is in the patch it sees well. Here is Starry Night with its tiles and with its pixels
# shuffled, turned round and shifted.


# %%
def shuffle_tiles(picture, side):
    """Cut the picture into squares and put them into random order."""
    n = len(picture) // side
    tiles = picture.reshape(n, side, n, side, 3).swapaxes(1, 2).reshape(n * n, side, side, 3)
    tiles = np.random.default_rng(2).permutation(tiles)
    return tiles.reshape(n, n, side, side, 3).swapaxes(1, 2).reshape(picture.shape)


starry = images.load(STYLES / "starry_night.jpg", size=128)[:, :128]
variants = {
    "shifted": np.roll(starry, 40, axis=1),
    "tiles of 32": shuffle_tiles(starry, 32),
    "tiles of 8": shuffle_tiles(starry, 8),
    "pixels": shuffle_tiles(starry, 1),
}
show(starry=starry, **variants, columns=5)

# %% tags=["check"]
f_starry, g_starry = features(starry), grams(starry)
for name, picture in variants.items():
    by_features, by_style = distance(features(picture), f_starry), distance(grams(picture), g_starry)
    print(f"{name:12} distance by features {by_features:.3f}, by style {by_style:.3f}")

# %% [markdown]
# By features, all four are nearly as far from the original as another painting would be. By style, a shift is
# next to nothing, although nearly every pixel has changed. (It is not exactly nothing: at the borders and at
# the seam there are new neighbours.) Tiles of 32 keep most of the style, tiles of 8 cut through every stroke,
# and single pixels keep only the colours: their distance is as large as that of another painting.
#
# That is what the Gram matrix keeps: **patterns as large as what one feature sees**. Larger things, and where
# they are, are forgotten.
#
# ## The gradient of the Gram matrix
#
# To walk down the style loss we need its gradient, in two steps: loss $\to G \to F$. Begin with the second.
# The upstream gradient is `dG`, which says how much the loss grows when each entry of $G$ grows.
#
# Think of one number first. If $g = f^2 / n$ and $f$ grows by $\epsilon$, then $g$ grows by
# $2 f \epsilon / n$. The 2 is there because $f$ stands *twice* in $f \cdot f$, and each side gives one
# $f \epsilon$. The same happens now with a table. If $F$ changes by a small $\delta F$,
#
# $$\delta G_{ab} = \frac1n \sum_p \left( \delta F_{pa}\, F_{pb} + F_{pa}\, \delta F_{pb} \right),
#   \qquad n = CHW$$
#
# (the product of two small numbers is left out). The loss changes by the sum of everything that happens to
# $G$:
#
# $$\delta L = \sum_{a,b} dG_{ab}\, \delta G_{ab}
#   = \frac1n \sum_{a,b,p} dG_{ab}\, \delta F_{pa}\, F_{pb} +
#   \frac1n \sum_{a,b,p} dG_{ab}\, F_{pa}\, \delta F_{pb}$$

# %% [markdown]
# The gradient with respect to $F_{pc}$ is what stands in front of $\delta F_{pc}$. In the first sum this is
# the terms with $a = c$, in the second those with $b = c$:
#
# $$dF_{pc} = \frac1n \Big( \underbrace{\sum_b F_{pb}\, dG_{cb}}_{(F\, dG^T)_{pc}} +
#   \underbrace{\sum_a F_{pa}\, dG_{ac}}_{(F\, dG)_{pc}} \Big)$$
#
# Two paths, and they are added:
#
# $$dF = \frac{1}{CHW}\, F\, (dG + dG^T)$$
#
# Check it, against differences and against the library. `dG` is random and *not* symmetric, so that a
# forgotten transpose would be seen.

# %% tags=["check"]
rng = np.random.default_rng(3)
f, dG = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(2, 3, 3))
F = f.reshape(2, 20, 3)
dF = (F @ (dG + dG.transpose(0, 2, 1)) / (3 * 4 * 5)).reshape(f.shape)

place, h = (1, 2, 3, 0), 1e-5
plus, minus = f.copy(), f.copy()
plus[place] += h
minus[place] -= h
by_differences = np.sum((ops.gram_matrix(plus)[0] - ops.gram_matrix(minus)[0]) * dG) / (2 * h)
(by_library,) = ops.gram_matrix_backward(dG, ops.gram_matrix(f)[1])
print(f"formula {dF[place]:.6f}, differences {by_differences:.6f}, library {by_library[place]:.6f}")

# %% [markdown]
# ## Exercise: the Gram matrix
#
# Write forward and backward for a batch of $N$ pictures. NumPy's `@` multiplies the last two axes and leaves
# the first alone.


# %% tags=["exercise", "gram"]
def gram_matrix(f):
    """f: (N, H, W, C). Returns (G, cache), G (N, C, C): eq. 3 for each picture."""
    raise NotImplementedError("not yet written")


def gram_matrix_backward(dgram, cache):
    """dgram: (N, C, C), not always symmetric. Return (df,), df of the shape of f."""
    raise NotImplementedError("not yet written")


# %%
check("gram_matrix", gram_matrix, gram_matrix_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("gram_matrix", gram_matrix, gram_matrix_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `f.reshape(n, h * w, c)` is the table of each picture. Which axes must be swapped for $F^T$? Backward needs
# the table and the shape.
#
# </details>
# <details><summary>Hint 2</summary>
#
# $G = F^T F / (CHW)$ and $dF = F\,(dG + dG^T) / (CHW)$, and at the end back to the shape of `f`. The
# transpose of each matrix in a stack is `.transpose(0, 2, 1)`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def gram_matrix(f):
#     n, h, w, c = f.shape
#     table = f.reshape(n, h * w, c)
#     return table.transpose(0, 2, 1) @ table / (c * h * w), f
#
#
# def gram_matrix_backward(dgram, cache):
#     n, h, w, c = cache.shape
#     both = dgram + dgram.transpose(0, 2, 1)
#     return ((cache.reshape(n, h * w, c) @ both / (c * h * w)).reshape(cache.shape),)
# ```
#
# </details>
#
# ## The gradient of the style loss
#
# Now the first step. The loss is a sum of squares, like the losses of lesson 4, so
#
# $$dG = 2\,(G - G_t)$$
#
# Put this in place of the upstream gradient. $G$ and $G_t$ are symmetric, so that $dG^T = dG$, and both paths
# give the same:
#
# $$dF = \frac{1}{CHW} F \cdot 2\,dG = \frac{4}{CHW}\, F\, (G - G_t)$$
#
# The 4 is 2 from the square and 2 from the two sides. Read the formula: if features $a$ and $b$ occur
# together too often, $G_{ab}$ is too large, and at *every* place where $b$ is large, $a$ is told to become
# smaller. No place is treated in a special way. For a batch, the loss is the mean over the $N$ pictures:
# divide by $N$.
#
# ## Exercise: the style loss
#
# Use your two functions above. (To `save` it for lesson 13, write their two lines out inside: a saved
# function must stand alone.)


# %% tags=["exercise", "style_loss"]
def style_loss(f, target_gram):
    """f: (N, H, W, C); target_gram: (C, C), or one for each picture, (N, C, C).

    Returns (value, a float; gradient with respect to f). Eq. 4, as a mean over the N pictures.
    """
    raise NotImplementedError("not yet written")


# %%
check("style_loss", style_loss)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("style_loss", style_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Forward through the Gram matrix, a difference, and backward through the Gram matrix: what is the upstream
# gradient?
#
# </details>
# <details><summary>Hint 2</summary>
#
# With $D = G - G_t$: the value is $\sum D^2 / N$, and the upstream gradient is $2 D / N$. The target
# broadcasts by itself.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def style_loss(f, target_gram):
#     gram, cache = gram_matrix(f)
#     difference = gram - target_gram
#     (df,) = gram_matrix_backward(2 * difference / len(f), cache)
#     return float(np.sum(difference**2)) / len(f), df
# ```
#
# </details>
#
# Try a mistake as well: return $F\, dG$ alone, one path of the two, and read what the check says.
#
# The formula against differences and the library, once more in numbers:

# %% tags=["check"]
target = ops.gram_matrix(rng.normal(size=(1, 4, 5, 3)))[0]
D = ops.gram_matrix(f)[0] - target
df = (4 / (3 * 4 * 5) * F @ D / 2).reshape(f.shape)  # N = 2
by_differences = (losses.style_loss(plus, target)[0] - losses.style_loss(minus, target)[0]) / (2 * h)
value, by_library = losses.style_loss(f, target)
print(f"formula {df[place]:.6f}, differences {by_differences:.6f}, library {by_library[place]:.6f}")

# %% [markdown]
# ## Starry Night without a scene
#
# Everything is ready. Begin with noise. Let VGG look at it, compare the Gram matrices of four layers with
# those of the painting, go backward through VGG to the pixels, take a step. No photo, no content: whatever
# appears is style.
#
# `StyleObjective` adds the four losses and returns the gradient with respect to the pixels. `descend` walks
# down. (It uses L-BFGS, a descent that finds its own step lengths. Lesson 10 opens it.)
#
# **Predict before you run:** will there be stars? A village? A sky above and a ground below?


# %%
def texture(painting, layers=LAYERS, evaluations=50, side=80, watch=()):
    """A picture from noise with the painting's Gram matrices. Returns it, the losses, pictures on the way."""
    style = {layer: 100.0 for layer in layers}
    objective = StyleObjective(vgg, painting[None], content={}, style=style, tv=1e-6)
    values, way = [], {}
    start = noise(side, side)
    for step, (terms, optimizer) in enumerate(descend(objective, {}, start, evaluations), start=1):
        values.append(terms["total"])
        if step in watch:
            way[f"after {step}"] = optimizer.best()[0].copy()
    return optimizer.best()[0], values, way


painting = images.load(STYLES / "starry_night.jpg", size=128, side="long")
result, values, way = texture(painting, evaluations=80, watch=(1, 5, 10, 20, 40))
show(**way, **{"after 80": result}, columns=3)

# %% tags=["cover"]
show(painting=painting, **{"style alone": result}, columns=2)

# %%
figure, axes = plt.subplots(figsize=(6, 3))
axes.semilogy(values)
axes.set_xlabel("evaluation")
axes.set_ylabel("style loss, weighted")
plt.show()

# %% [markdown]
# The loss falls by a factor of several hundred. There are swirls, and round yellow lights; but no sky above
# and no ground below, and no village: these are places. It is Starry Night as a material, as if printed on
# cloth. The squares at the beginning were told apart by nothing else.
#
# ## One layer after the other
#
# Which layer knows what? Here is the same with the first layer alone, then with two, then with three.
#
# **Predict before you run:** what is missing in the first?

# %%
by_depth = {f"up to {LAYERS[k]}": texture(painting, LAYERS[: k + 1])[0] for k in range(3)}
show(**by_depth)

# %% [markdown]
# The first layer sees 5 x 5 pixels: the colours are right, and they stand in shapeless spots. The second,
# with 14 x 14, adds strokes that lie side by side. The third, with 40 x 40, bends them together to curls and
# gathers them round lights. (Nothing punished larger forms; they were not asked for.) The paper uses all
# four.
#
# ## Other hands
#
# The same three lines for three other paintings. Look back at the squares at the beginning.

# %%
others = {}
for name in ("pere_tanguy", "langlois_bridge", "harvest_at_la_crau"):
    others[name.replace("_", " ")] = texture(images.load(STYLES / f"{name}.jpg", size=128, side="long"))[0]
show(**others)

# %% [markdown]
# You know the hand at once. In the second you also see the limit: a small painting has few things in it, and
# they come back almost whole. What is as small as the patch that a feature sees counts as style.
#
# ## Do it large
#
# The command does the same at any size, first small and then larger, which gives large forms as well as fine
# strokes. On a processor with two cores this takes some minutes:
#
# ```sh
# tinynst optimize texture --style mine.jpg --size 256 --scales 2 --iterations 200
# ```
#
# ## What you have seen
#
# - The **Gram matrix** $G = F^T F / (CHW)$ holds the mean product of each pair of features: what occurs
#   together, wherever.
# - It forgets all places exactly, and does not depend on the size of the picture.
# - $F$ stands on both sides, and each side gives a term: $dF = F\,(dG + dG^T)/(CHW)$. The style loss has
#   $dG = 2\,(G - G_t)$, which makes $dF = 4\,F\,(G - G_t)/(CHW)$.
# - A picture from noise that follows this gradient becomes the painting's texture, without its scene.
#
# **In the paper:** section 3.2, equations 3 and 4; the figures of style reconstruction show what you saw with
# one layer after the other. **In the library:** `ops/gram.py` has both functions, `losses.style_loss` is
# equation 4, `StyleObjective` weights and adds the layers (it divides equation 4 by $C^2$, so that one weight
# suits them all), and `tools/optimize.py` holds `descend`.
#
# **Next:** both losses at once. The photo gives the content, the painting the style, and the picture is the
# parameter.
