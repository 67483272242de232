# %% [markdown]
# # 14. Many styles, one net
#
# **After this lesson you can** write the layer that lets one network paint in many styles, say which row of
# numbers gets which gradient, walk between paintings, and teach the network a new painting in seconds by
# changing 3,200 of its 1.7 million numbers.
#
# About 60 minutes, of which one and a half are computing. You need lesson 7 (norms) and lesson 12 (the
# training loop).

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, check, load_style, ops, show, style_net, stylize
from tinynst.data import images, photos, styles
from tinynst.losses import StyleObjective
from tinynst.networks.vgg import MEAN_RGB
from tinynst.optim import Adam
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools import metrics

net = load_style("gallery")
cat = images.load(PHOTOS / "chelsea.jpg", size=96)[:, 20:116]
castle = images.load(PHOTOS / "neuschwanstein.jpg", size=96)[:, :96]

# %% [markdown]
# ## A map of paintings
#
# Four painters stand in the corners: Van Gogh and Munch above, Hokusai and Mondrian below. Between them are
# 21 painters who never lived. All 25 pictures come from *one* network, and nobody trained it for those in
# between.

# %% tags=["cover"]
corners = ("starry_night", "the_scream", "great_wave", "mondrian_1913")


def painter(down, right):
    """The shares of the four corners at a place of the map, 0 to 1 in both directions."""
    shares = ((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right)
    return net.mixture(dict(zip(corners, shares, strict=True)))


places = np.linspace(0, 1, 5)
rows = [[net.forward(castle[None], style=painter(down, right))[0] for right in places] for down in places]
show(np.vstack([np.hstack(row) for row in rows]))

# %% [markdown]
# ## Why one network?
#
# The paper trains one network for each painting. Most of what such a network learns is the same every time:
# to see edges, to lay strokes along them, to keep what is in the photo. Dumoulin, Shlens and Kudlur ("A
# Learned Representation for Artistic Style", 2016) found that all of that can be shared. Each style needs
# numbers of its own *only in the norms*.

# %% tags=["check"]
sizes = {name: array.size for name, array in net.parameters().items()}
in_rows = sum(size for name, size in sizes.items() if name.endswith((".gamma", ".beta")))
paintings = len(net.styles) - 1  # the last row is no painting
shared, one_row = sum(sizes.values()) - in_rows, in_rows // len(net.styles)
print(f"shared by all styles: {shared:,} numbers; one style's row: {one_row:,}")
print(f"{paintings} networks of one style: {paintings * (shared + one_row) / 1e6:.1f} million numbers")
print(f"one network with {paintings} rows:  {(shared + paintings * one_row) / 1e6:.1f} million numbers")
print(f"a row in half precision: {2 * one_row / 1000:.1f} kB")

# %% [markdown]
# The network norms 1,600 channels in all, and a style has two numbers for each: $\gamma$ and $\beta$. With a
# thumbnail and what is known of the painting, a style takes less than 10 kB in the file.
#
# ## The layer
#
# Lesson 7 in one line: instance norm takes mean and contrast away from each channel of each image, then puts
# in new ones:
#
# $$y = \gamma\, \hat x + \beta$$
#
# **Conditional instance norm** has a *table* of them, with a row for each of $S$ styles: `gamma` and `beta`
# are $(S, C)$. And it gets one more input, the **mixture** `mix` of shape $(N, S)$. It says how much of each
# style each image gets. Image $n$ is normed with
#
# $$\gamma_n = \sum_s m_{ns}\, \gamma_s, \qquad \beta_n = \sum_s m_{ns}\, \beta_s, \qquad
#   y_n = \gamma_n\, \hat x_n + \beta_n$$
#
# Both sums are matrix products, `mix @ gamma` and `mix @ beta`. If an image has one style, its row of `mix`
# is a one and zeros, and the product does nothing but *look up* a row:

# %%
gamma = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0]])  # 3 styles, 3 channels
mix = np.array([[0, 1, 0], [0.5, 0, 0.5]])  # image 0: style 1; image 1: half 0, half 2
print(mix @ gamma)

# %% [markdown]
# The means of $\hat x$ are taken over each image alone, so the images of a batch know nothing of each other
# (lesson 7). One batch may therefore hold every style:

# %%
batch = np.stack([castle] * 4)
mixtures = np.array([net.mixture(name) for name in ("poppies", "the_kiss", "water_lilies")])
mixtures = np.concatenate([mixtures, mixtures[:2].mean(axis=0, keepdims=True)])
painted = net.forward(batch, style=mixtures)
titles = ("poppies", "the kiss", "water lilies", "half poppies, half kiss")
show(**dict(zip(titles, painted, strict=True)))

# %% [markdown]
# ## The gradient, step by step
#
# Forward has two steps: `mix` and the tables give $\gamma_n$ and $\beta_n$; then the norm. Backward goes
# through them in the opposite order.
#
# **Step 1: the norm.** Once $\gamma_n$ and $\beta_n$ are there, image $n$ passes through an instance norm
# like any other. Lesson 7 gives its `dx`, and for each image and channel
#
# $$d\gamma_n = \sum_{\text{pixels}} dy_n\, \hat x_n, \qquad d\beta_n = \sum_{\text{pixels}} dy_n$$
#
# In lesson 7 these were added over the images as well, because all images used the same $\gamma$. Here each
# has its own, so both stay $(N, C)$.
#
# **Step 2: the table.** Let the entry $\gamma_s$ of style $s$ (in one channel) grow by a small $\epsilon$.
# Then $\gamma_n$ grows by $m_{ns}\,\epsilon$, in *every* image. Each of these changes the loss by
# $d\gamma_n\, m_{ns}\, \epsilon$. Where paths meet, slopes add:
#
# $$d\gamma_s = \sum_n m_{ns}\, d\gamma_n, \qquad d\beta_s = \sum_n m_{ns}\, d\beta_n$$
#
# The sum goes over the *first* index of `mix`, so in code it is `mix.T @ dgamma_n`.

# %% [markdown]
# **Step 3: the mixture.** `mix` is an input like the others. Let $m_{ns}$ grow by $\epsilon$. Then $\gamma_n$
# grows by $\epsilon\, \gamma_s$ and $\beta_n$ by $\epsilon\, \beta_s$, in *each channel* $c$. So all channels
# are added, and both ways:
#
# $$dm_{ns} = \sum_c \left( d\gamma_{nc}\, \gamma_{sc} + d\beta_{nc}\, \beta_{sc} \right)$$
#
# In code: `dgamma_n @ gamma.T + dbeta_n @ beta.T`. Training does not need this one, since nobody learns the
# mixtures. But a backward pass that leaves out an input is not complete.
#
# Compare all four gradients with the library and with differences:


# %%
def conditional_norm(x, gamma, beta, mix, eps=1e-5):
    """For this check only: the forward pass, as the formulas say."""
    std = np.sqrt(x.var(axis=(1, 2), keepdims=True) + eps)
    x_hat = (x - x.mean(axis=(1, 2), keepdims=True)) / std
    return (mix @ gamma)[:, None, None] * x_hat + (mix @ beta)[:, None, None], x_hat


rng = np.random.default_rng(0)
inputs = {
    "x": rng.normal(size=(3, 4, 5, 2)),
    "gamma": rng.normal(size=(4, 2)),
    "beta": rng.normal(size=(4, 2)),
    "mix": rng.uniform(size=(3, 4)),
}
y, x_hat = conditional_norm(**inputs)
dy = rng.normal(size=y.shape)
dgamma_n, dbeta_n = (dy * x_hat).sum(axis=(1, 2)), dy.sum(axis=(1, 2))
formulas = {
    "x": None,  # lesson 7
    "gamma": inputs["mix"].T @ dgamma_n,
    "beta": inputs["mix"].T @ dbeta_n,
    "mix": dgamma_n @ inputs["gamma"].T + dbeta_n @ inputs["beta"].T,
}

# %% tags=["check"]
_, cache = ops.conditional_instance_norm(**inputs)
library = dict(zip(inputs, ops.conditional_instance_norm_backward(dy, cache), strict=True))
for name, array in inputs.items():
    by_differences, h = np.zeros_like(array), 1e-5
    for place in np.ndindex(array.shape):
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * h
            by_differences[place] += (
                sign * np.sum(conditional_norm(**{**inputs, name: moved})[0] * dy) / (2 * h)
            )
    close = np.allclose(library[name], by_differences, atol=1e-7)
    formula = "" if formulas[name] is None else f", formula: {np.allclose(formulas[name], by_differences)}"
    largest = abs(by_differences).max()
    print(f"d{name:5} {array.shape}: largest {largest:.3f}, library and differences agree: {close}{formula}")

# %% [markdown]
# ## Which rows get which gradient?
#
# A batch of three images: the first in style 1, the second in style 1 as well, the third half in style 0 and
# half in style 3.
#
# **Predict before you run:** which rows of `dgamma` are zero? Which row gets the sum of two images?

# %%
mix = np.array([[0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0.5, 0, 0, 0.5, 0]])
x, gamma, beta = rng.normal(size=(3, 6, 6, 8)), np.ones((5, 8)), np.zeros((5, 8))
_, cache = ops.conditional_instance_norm(x, gamma, beta, mix)
_, dgamma, _, _ = ops.conditional_instance_norm_backward(rng.normal(size=x.shape), cache)

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", width_ratios=(1, 1.6))
axes[0].imshow(mix, cmap="Greys", vmin=0, vmax=1)
for (n, s), share in np.ndenumerate(mix):
    axes[0].text(s, n, f"{share:g}", ha="center", va="center", color="white" if share > 0.6 else "black")
axes[0].set(title="mix", xlabel="style", ylabel="image", yticks=range(3))
drawn = axes[1].imshow(abs(dgamma), cmap="viridis")
axes[1].set(title="|dgamma|", xlabel="channel", ylabel="style (row)")
figure.colorbar(drawn)
plt.show()

# %% [markdown]
# Rows 2 and 4 get nothing: no image used them. Row 1 gets the whole gradient of two images. Rows 0 and 3 get
# the *same* gradient, half of image 2's each.
#
# That is why styles can be learnt together without getting in each other's way. The gradient of a step for
# one painting reaches that painting's row and the shared kernels, and no other row.
#
# ## Exercise: conditional instance norm
#
# Write both functions, for x (N, H, W, C), gamma and beta (S, C), mix (N, S). Derive steps 1 to 3 again
# before you look.


# %% tags=["exercise", "conditional_instance_norm"]
def conditional_instance_norm(x, gamma, beta, mix, eps=1e-5):
    """Instance norm in which image n gets the mixture mix[n] of the rows. Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def conditional_instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta, dmix, each with the shape of its input."""
    raise NotImplementedError("not yet written")


# %%
check("conditional_instance_norm", conditional_instance_norm, conditional_instance_norm_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `mix @ gamma` is (N, C). To multiply it with x, it needs two axes more: `[:, None, None]`. Backward is your
# instance norm of lesson 7, only that `dgamma` and `dbeta` are added over the pixels and *not* over the
# images. Then four matrix products.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With dgamma_n and dbeta_n (N, C), the sums over axes 1 and 2: dgamma = mix.T @ dgamma_n, dbeta = mix.T @
# dbeta_n, dmix = dgamma_n @ gamma.T + dbeta_n @ beta.T. And dx = (g - mean(g) - x_hat * mean(g * x_hat)) /
# std with g = gamma_n * dy and means over axes 1 and 2.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def conditional_instance_norm(x, gamma, beta, mix, eps=1e-5):
#     std = np.sqrt(x.var(axis=(1, 2), keepdims=True) + eps)
#     x_hat = (x - x.mean(axis=(1, 2), keepdims=True)) / std
#     gamma_n, beta_n = (mix @ gamma)[:, None, None], (mix @ beta)[:, None, None]
#     return gamma_n * x_hat + beta_n, (x_hat, std, gamma_n, gamma, beta, mix)
#
#
# def conditional_instance_norm_backward(dy, cache):
#     x_hat, std, gamma_n, gamma, beta, mix = cache
#     g = gamma_n * dy
#     mean_g = g.mean(axis=(1, 2), keepdims=True)
#     mean_gx = (g * x_hat).mean(axis=(1, 2), keepdims=True)
#     dx = (g - mean_g - x_hat * mean_gx) / std
#     dgamma_n, dbeta_n = (dy * x_hat).sum(axis=(1, 2)), dy.sum(axis=(1, 2))
#     dmix = dgamma_n @ gamma.T + dbeta_n @ beta.T
#     return dx, mix.T @ dgamma_n, mix.T @ dbeta_n, dmix
# ```
#
# </details>
#
# ## What do the rows look like?
#
# Here are the 14 rows of the network that ships, in one of its norms: $\gamma$ of 128 channels. Read it as 14
# bar codes.

# %%
tables = {name: array for name, array in net.parameters().items() if name.endswith((".gamma", ".beta"))}
figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
drawn = axes.imshow(tables["residual4.norm1.gamma"], cmap="viridis", aspect="auto", interpolation="nearest")
axes.set_yticks(range(len(net.styles)), net.styles)
axes.set(xlabel="channel of residual4.norm1", title="gamma")
figure.colorbar(drawn)
plt.show()

# %% [markdown]
# Some columns look alike from top to bottom: a channel that is loud for one painter is often loud for the
# others. Many differ. And the last row, `identity`, is a case of its own. It was trained without a painting,
# to give the photo back, and it has switched many channels off:

# %% tags=["check"]
gammas = np.concatenate([array for name, array in tables.items() if name.endswith(".gamma")], axis=1)
off = (gammas < 0.25).mean(axis=1)
print("share of the channels with gamma below 0.25:")
print(f"{off[:-1].min():.1%} to {off[:-1].max():.1%} in a painting's row, {off[-1]:.1%} in the identity row")

# %% [markdown]
# Now put all 3,200 numbers of a style into one long vector. Then two styles have a distance, like two points.
# Nobody told the network who painted what.
#
# **Predict before you run:** which paintings will lie next to each other?

# %%
vectors = np.concatenate(list(tables.values()), axis=1)
apart = np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2))
figure, axes = plt.subplots(figsize=(7, 5.2), layout="constrained")
drawn = axes.imshow(np.where(apart == 0, np.nan, apart), cmap="viridis")
axes.set_xticks(range(len(net.styles)), net.styles, rotation=60, ha="right")
axes.set_yticks(range(len(net.styles)), net.styles)
figure.colorbar(drawn, label="distance of two rows")
plt.show()

# %% tags=["check"]
known = styles.shipped()
without_self = apart[:paintings, :paintings] + 1000 * np.eye(paintings)
for k in np.argsort(without_self.min(axis=1)):
    near = net.styles[without_self[k].argmin()]
    one, other = (f"{name} ({known[name]['painter'].split(' (')[0]})" for name in (net.styles[k], near))
    print(f"{without_self[k].min():.1f}  {one} -> {other}")
print(f"to the identity row: {apart[-1, :paintings].min():.1f} to {apart[-1, :paintings].max():.1f}")

# %% [markdown]
# The row nearest to *The Great Wave* is that of Hokusai's other picture. Two of the three Van Goghs have
# another Van Gogh for their neighbour, and the third misses it by 0.1. It works like the map that a
# streaming service makes of its songs: what needs similar numbers ends up close together. But do not read too
# much into it. Most rows are about equally far from each other, in as many directions as there are paintings.
#
# The identity row is far from all of them. What does it do? A residual block (lesson 11) adds its branch to
# what passes by on the shortcut. Compare how large the two are:

# %%
blocks = {name: layer for name, layer in net.layers.layers.items() if name.startswith("residual")}


def branch_shares(style):
    """For each residual block: the std of what its branch adds, divided by that of its input."""
    x, mix, shares = castle[None] - np.float32(MEAN_RGB), net.mixture(style)[None].astype(np.float32), []
    for name, layer in net.layers.layers.items():
        y = layer.forward(x, False, mix) if layer.conditional else layer.forward(x, False)
        if name in blocks:
            shares.append((y - x).std() / x.std())
        x = y
    return shares


figure, axes = plt.subplots(figsize=(6.5, 3.2))
for name in (*corners, "identity"):
    dashed = "--" if name == "identity" else "-"
    axes.plot(range(1, 6), branch_shares(name), dashed, marker="o", label=name)
axes.set(xlabel="residual block", ylabel="branch / shortcut", xticks=range(1, 6))
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# The identity row turns the branches down and lets the shortcut pass. To paint nothing, get out of the way.
#
# ## A walk
#
# A mixture of two rows is a row between them. Here is a walk from Van Gogh's night to his café, and below it
# the obvious alternative: the two finished pictures, laid over each other.

# %%
first, last = "starry_night", "cafe_terrace_at_night"
wide = images.load(PHOTOS / "chelsea.jpg", size=128)
ends = [net.forward(wide[None], style=name)[0] for name in (first, last)]
shares = np.linspace(0, 1, 5)
walked = [net.forward(wide[None], style=net.mixture({first: 1 - s, last: s}))[0] for s in shares]
blended = [((1 - s) * ends[0] + s * ends[1]).astype(np.float32) for s in shares]
shown = {f"rows, {s:.0%}": picture for s, picture in zip(shares, walked, strict=True)}
shown |= {f"pictures, {s:.0%}": picture for s, picture in zip(shares, blended, strict=True)}
show(**shown, columns=5)

# %% [markdown]
# They look similar at first sight. Which of them is *better*? Ask the objectives, those that the two rows
# were trained for. With a share of $s$ of the second style, a fair goal is $(1 - s)$ times the first
# objective plus $s$ times the second.
#
# **Predict before you run:** does the walk through the rows beat the blend of the pictures, although nobody
# trained the rows in between?

# %%
vgg = VGG16.load()


def objective_of(name):
    """The objective that a shipped style was trained for (its painting must ship as well)."""
    goal = known[name]["objective"]
    painting = images.load(STYLES / known[name]["painting"], size=goal["style_size"], side="long")
    return styles.style_objective(vgg, painting[None], goal)


goals = [objective_of(name) for name in (first, last)]
targets = [goal.targets(wide[None]) for goal in goals]


def both(picture, share):
    one, other = (goal.value(picture[None], t) for goal, t in zip(goals, targets, strict=True))
    return ((1 - share) * one + share * other) / 1000


by_rows = [both(picture, s) for picture, s in zip(walked, shares, strict=True)]
by_pictures = [both(picture, s) for picture, s in zip(blended, shares, strict=True)]
figure, axes = plt.subplots(figsize=(6.5, 3.4))
axes.plot(100 * shares, by_pictures, "o-", label="pictures blended")
axes.plot(100 * shares, by_rows, "o-", label="rows mixed")
axes.set(xlabel="share of the café, %", ylabel="mixed objective (thousands)", ylim=(0, None))
axes.legend()
plt.show()

# %% tags=["check"]
print(f"in the middle: rows mixed {by_rows[2]:.0f}, pictures blended {by_pictures[2]:.0f} thousand")

# %% [markdown]
# In the middle the rows are ahead by an eighth. (Why a hill? The middle serves two masters: each objective
# wants its own painting, and no picture pleases both. The hill is no fault of the walk.)
#
# ## Strength is a walk, too
#
# Walk from `identity` to a painting and you have a strength from 0 to 1. But the identity row gives the photo
# back a little soft. So `stylize` adds what that row lost, as much of it as there is photo in the mixture:
#
# $$y(s) = \text{net}(\text{row}_s) + (1 - s)\,\big(\text{photo} - \text{net}(\text{identity})\big)$$
#
# where $\text{row}_s$ is $s$ times the painting's row and $1 - s$ times identity's. At $s = 0$ this is the
# photo, exactly; at $s = 1$ the painting.


# %%
def with_strength(photo, style, s):
    row = s * net.mixture(style) + (1 - s) * net.mixture("identity")
    lost = photo - net.forward(photo[None], style="identity")[0]
    return net.forward(photo[None], style=row)[0] + np.float32(1 - s) * lost


painted = net.forward(cat[None], style="mondrian_1913")[0]
strengths = (0, 0.25, 0.5, 0.75, 1)
shown = {f"rows, {s:g}": with_strength(cat, "mondrian_1913", s) for s in strengths}
shown |= {f"laid over, {s:g}": s * painted + (1 - s) * cat for s in strengths}
show(**shown, columns=5)

# %% tags=["check"]
net.style = net.mixture("mondrian_1913")
ours, theirs = with_strength(cat, "mondrian_1913", 0.5), stylize(net, cat, strength=0.5).astype(float)
print(f"equal to stylize(..., strength=0.5): {abs(ours.clip(0, 255) - theirs).max() < 1}")

# %% [markdown]
# In the lower row a finished painting lies over the cat, half transparent. In the upper row the strokes
# themselves grow.
#
# And nothing says that a walk must end at the painting. A share of 1.5 for the wave and -0.5 for identity
# sums to 1 as well. **Predict before you run:** what is more Hokusai than Hokusai?

# %%
wave, photo_row = net.mixture("great_wave"), net.mixture("identity")
beyond = {
    f"{s:g}": net.forward(cat[None], style=photo_row + s * (wave - photo_row))[0] for s in (-0.5, 0.5, 1, 1.5)
}
show(**{f"strength {s}": picture for s, picture in beyond.items()})

# %% [markdown]
# At 1.5 the hatching takes over the picture. At -0.5 the network does *less* than nothing: it blurs, as if it
# took strokes away.
#
# ## A new painting
#
# Now the best part. If a style is 3,200 numbers and the rest can be shared, then a *new* painting needs only
# a new row. Here is one that the network does not know:

# %%
road = images.load(STYLES / "road_to_tarascon.jpg", size=256, side="long")
layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
plain = StyleObjective(vgg, road[None], {}, dict.fromkeys(layers, 1.0), 0.0)
level = np.mean([plain.value(photo[None], {}) for photo in (cat, castle)])
weight = 2.5e6 / level  # so that a plain photo has a style loss of 2.5 million
goal = StyleObjective(vgg, road[None], {"relu3_3": 1.0}, dict.fromkeys(layers, weight), 0.0)
print(f"style weight: {weight:.2f}")
show(road_to_tarascon=road)

# %% [markdown]
# (How strong a style should be depends on the painting, because a Gram matrix of strong colours is large. So
# the weight is found by a rule: an unchanged photo gets a style loss of 2.5 million. `tinynst train` has it
# as `--style-level`.)
#
# **Where to start?** One could begin with $\gamma = 1$, $\beta = 0$. But the network knows 14 rows already,
# and one of them may be near. So paint two photos with every row, and ask the new painting's objective. That
# costs 28 passes and no training. (The trainer does the same, with three photos.)


# %%
def judge(network, style=None):
    """The mean objective on two photos that are not trained on, in thousands."""
    test = (cat, castle)
    return np.mean(
        [goal.value(network.forward(p[None], style=style), goal.targets(p[None])) / 1000 for p in test]
    )


totals = {name: judge(net, name) for name in net.styles}
closest = min(totals, key=totals.get)
for name in sorted(totals, key=totals.get)[:4]:
    print(f"{name:24} {totals[name]:6.0f} thousand")

# %% [markdown]
# We make a network of one style with the shared kernels and a copy of that row, and tell it to learn its
# norms only. Then the loop of lesson 12, word for word.


# %%
def network_of_one(row):
    """A network of one style, with the gallery's kernels. row: a style's name; None: gamma 1 and beta 0."""
    one = style_net(upsample="smooth", padding="each")
    arrays = styles.with_rows(net.parameters(), net.styles.index(row or closest))
    if row is None:
        arrays |= {name: np.ones_like(array) for name, array in arrays.items() if name.endswith(".gamma")}
        arrays |= {name: np.zeros_like(array) for name, array in arrays.items() if name.endswith(".beta")}
    one.load(arrays)
    return one


training_photos = photos.open_dataset(PHOTOS, side=160)


def learn(one, lr, steps, watch=()):
    """Learn `goal`. Returns {step: judgement} and {step: picture of the cat}."""
    optimizer, judged, pictures = Adam(one.learnt(), lr), {0: judge(one)}, {}
    optimizer.rates = {name: 0.1 for name in ("out.w", "out.b") if name in one.learnt()}
    with photos.batches(training_photos, batch=1, size=80, seed=0) as loaded:
        for step in range(1, steps + 1):
            x = next(loaded)
            y = one.forward(x, training=True)
            _, dy = goal(y, goal.targets(x))
            one.backward(dy, need=("w",))
            optimizer.lr = lr * min(1.0, 2 * (1 - (step - 1) / steps))  # falls over the second half
            optimizer.step(one.gradients())
            if step % 10 == 0:
                judged[step] = judge(one)
            if step in watch:
                pictures[f"after {step} steps"] = one.forward(cat[None])[0]
    return judged, pictures


# %%
new = network_of_one(closest)
before = {name: array.copy() for name, array in new.parameters().items()}
start = new.forward(cat[None])[0]
new.learn_norms_only()
begin = time.process_time()  # other programs do not count
curves = {}
curves[f"3,200 numbers, from {closest}"], pictures = learn(new, 0.03, 60, watch=(10, 30, 60))
print(f"60 steps in {time.process_time() - begin:.0f} s of one core")
show(photo=cat, **{f"start: {closest}": start}, **pictures, columns=5)

# %% tags=["check"]
changed = [name for name, array in new.parameters().items() if not np.array_equal(array, before[name])]
kernels = [name for name in changed if not name.endswith((".gamma", ".beta"))]
print(f"arrays: {len(before)}, changed: {len(changed)}, of them kernels: {len(kernels)}")
print(f"the objective fell to less than a third: {judge(new) < totals[closest] / 3}")

# %% [markdown]
# Sixty steps with one photo of 80 pixels each: some seconds, and the network paints Tarascon. Not one kernel
# has changed. So the row can be put back into the gallery as number 15, and the other 14 paint exactly as
# before.
#
# Two questions remain. Was it worth while to look for a good start? And what would we gain by learning all
# 1.7 million numbers?

# %%
ones = network_of_one(None)
ones.learn_norms_only()
curves["3,200 numbers, from gamma 1, beta 0"], _ = learn(ones, 0.03, 40)
everything = network_of_one(closest)
curves[f"all numbers, from {closest}"], pictures_all = learn(everything, 1e-3, 60, watch=(60,))

# %%
figure, axes = plt.subplots(figsize=(7, 3.6))
for (name, curve), line in zip(curves.items(), ("o-", "s--", "^:"), strict=True):
    axes.semilogy(curve.keys(), curve.values(), line, label=name)
axes.set(xlabel="step", ylabel="objective on two photos (thousands)")
axes.set_yticks([400, 600, 800, 1000, 1400], ["400", "600", "800", "1,000", "1,400"], minor=False)
axes.set_yticks([], minor=True)
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %%
show(row_only=pictures["after 60 steps"], everything=pictures_all["after 60 steps"], painting=road, columns=4)

# %% [markdown]
# In so few steps the row alone does as well as the whole network: 3,200 numbers that learn at a rate of 0.03,
# and 1.7 million at 0.001, as the trainer has it. In trials with a wider crop of the cat, 160 steps ended at
# 341 thousand for the row and 337 for everything: there the whole network had just drawn level. It has more
# room, since a row can only choose among strokes that the kernels know. But then its file holds this one
# style, and all others are lost.
#
# And the good start? Here it hardly matters; in a trial with `night_cafe` it saved twenty steps. The kernels
# know so much about painting that nearly any row soon becomes a painter.
#
# ## Do it large
#
# **This cell says how to do it for your own painting.** In a shell:
#
# ```sh
# tinynst train --style mine.jpg                    # the whole network learns; the file holds your style only
# tinynst train --style mine.jpg --learn rows       # a row is added to the gallery; all others stay
# ```
#
# Both start from the gallery, and both look for the nearest row first. The first is 800 steps with the 80
# photos that ship. With `road_to_tarascon.jpg` it took 17 minutes and 43 seconds on one core. The result has
# an objective of 190 thousand on four held-out photos (the photos themselves: 1,644 thousand). L-BFGS, from
# noise, needs 26.5 evaluations to come as low (25 to 30 by photo; lesson 10). How far `--learn rows` gets in
# that time has not been measured.
#
# ## Many at once
#
# The gallery was trained with all its paintings together: each step takes one photo and *one* painting, and a
# round takes all paintings in a random order. In such a training a row gets a gradient in one step of $S$.
# The other steps, its gradient is zero. What does Adam make of that?

# %% tags=["check"]
for styles_in_net in (1, 4, 8, 16):
    row = {"gamma": np.zeros(1)}
    adam = Adam(row, lr=1.0)
    for step in range(4000):
        adam.step({"gamma": np.array([float(step % styles_in_net == 0)])})
    halfway = row["gamma"].copy()
    for step in range(1600):
        adam.step({"gamma": np.array([float(step % styles_in_net == 0)])})
    per_use = -(row["gamma"] - halfway)[0] / (1600 / styles_in_net)
    print(f"{styles_in_net:2} styles: {per_use:.2f} lr for each step with a gradient,", end=" ")
    print(f"{per_use / styles_in_net:.2f} lr for each step of the run")

# %% [markdown]
# Adam divides by the root of the *mean* square, and zeros lower that mean to $1/S$ of it. So a row moves
# $\sqrt S$ times as far each time that it is used. But it is used $S$ times less often, and in all it is
# $\sqrt S$ times slower than the kernels, which get a gradient in every step. The trainer makes up for that:
# with $S$ paintings the rows learn at $\sqrt S$ times the rate.
#
# Does it matter? Eight styles in one network, 300 seconds of one core, judged on The Starry Night by four
# held-out photos at 256 x 256 (objective in thousands; after how many evaluations L-BFGS from noise is as
# good):
#
# | eight styles in one net | steps | objective | equal to |
# |---|---:|---:|---:|
# | rows at the learning rate of the rest, after two thirds of the time | 543 | 732 | 7.5 |
# | rows at four times that rate, after two thirds of the time | 534 | 569 | 10 |
# | rows at four times that rate, at the end | 807 | 455 | 12.5 |
#
# ## What a CPU hour buys
#
# Before the gallery was trained, short trials decided how. All had equal processor time: 400 seconds of one
# core (300 for the eight styles), batch 1, crops of 128 x 128, `relu3_3` with weight 1, the four style layers
# with weight 5, the painting at 384 pixels. The learning rate rises over 50 steps and falls to zero over the
# second half. Where nothing else is said, the network has width 32, reflects at each layer and enlarges
# bilinearly. They were judged as in the last table, on The Starry Night. One run each, so a difference of one
# evaluation means nothing.

# %%
trials = {  # name: (steps, objective in thousands, equal to so many evaluations)
    "width 32, 1e-3": (1091, 556, 9.5),
    "4e-4": (1090, 354, 17),
    "1e-3, last layer 1/10": (1055, 342, 18),
    "2e-3, last layer 1/20": (1057, 340, 18),
    "2e-3, last layer 1/20, width 16": (1457, 334, 18.5),
    "1e-3, 40 pixels of reflection before the net, nearest": (919, 367, 16),
    "1e-3, held to the end": (1075, 501, 11),
    "1e-3, held to the end, running average of the weights (0.995)": (None, 692, 8),
    "eight styles, rows at 4 times the rate, 300 s": (807, 455, 12.5),
}
figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
names = [f"{name}  ({steps:,} steps)" if steps else name for name, (steps, _, _) in trials.items()]
bars = axes.barh(names, [objective for _, objective, _ in trials.values()])
axes.bar_label(
    bars, [f"{objective}: {equal:g} evaluations" for _, objective, equal in trials.values()], padding=3
)
axes.invert_yaxis()
axes.set(xlabel="objective in thousands (a short bar is good)", xlim=(0, 1100))
plt.show()

# %% [markdown]
# What the bars say:
#
# - **The learning rate of the last layer decides whether the first minutes are lost.** Beyond that, rate and
#   width matter little in so short a time.
# - Holding the rate to the end was no worse here (501 against 556). But both runs had lost their first
#   minutes, so it says little.
# - A **running average** of the weights is late while the loss still falls fast.
# - **Eight styles at once** reach 12.5 in three quarters of the time in which one alone reaches 18, and each
#   row was used in an eighth of the steps. Most of what is learnt is shared.
#
# (Not measured: batch 2, and 128 pixels first and 256 later against 256 alone.)
#
# ## Cause 1: the last layer
#
# Why does the last layer need a smaller rate? It is a 9 x 9 convolution of 32 channels. Each number of the
# picture is a sum of $9 \cdot 9 \cdot 32 = 2{,}592$ products. Adam moves *every* weight by about the learning
# rate, all of them in the direction that helps. At 0.001, one step moves such a sum by up to 2.6 times the
# mean activation. What comes next is $150 \tanh$, which is flat beyond 2 (lesson 2): a few steps too far, and
# the gradient is gone. Watch it, with a fresh network:

# %%
starry = images.load(STYLES / "starry_night.jpg", size=192, side="long")
fresh_goal = StyleObjective(vgg, starry[None], {"relu3_3": 1.0}, dict.fromkeys(layers, 5.0), 0.0)
small = images.resize(cat, 64, 64)[None]
fresh_targets = fresh_goal.targets(small)
figure, axes = plt.subplots(figsize=(6.5, 3.2))
fresh_pictures = {}
for factor in (1.0, 0.1):
    fresh = style_net(upsample="smooth", padding="each", seed=0)
    adam, totals_of_run = Adam(fresh.parameters(), lr=1e-3), []
    adam.rates = {"out.w": factor, "out.b": factor}
    for step in range(16):
        y = fresh.forward(small, training=True)
        if step in (1, 4, 15):
            fresh_pictures[f"x {factor:g}, step {step}"] = y[0]
        terms, dy = fresh_goal(y, fresh_targets)
        totals_of_run.append(terms["total"] / 1000)
        fresh.backward(dy, need=("w",))
        adam.step(fresh.gradients())
    axes.semilogy(totals_of_run, "o-", label=f"last layer at {factor:g} of the rate")
axes.set(xlabel="step", ylabel="objective (thousands)")
axes.legend()
plt.show()

# %%
show(**fresh_pictures, columns=6)

# %% [markdown]
# At the full rate a single step throws the picture against its limits (left). At a tenth it keeps its
# balance. In the long trials such a start took minutes to recover: with a tenth of the rate for this layer
# (`--lr-last 0.1`), the objective after the first 130 seconds was 442 thousand against 3,487. That is the
# cause when "my network turns black or flat".
#
# ## Cause 2: threads
#
# Networks that enlarge by copying pixels (*nearest*, lesson 6) draw fine horizontal and vertical lines all
# over the picture, 2 and 4 pixels apart. Let the gallery's kernels run with another enlargement, and look
# closely:

# %%
swapped = style_net(upsample="nearest", padding="each", styles=net.styles)
swapped.load(net.parameters())
large = images.load(PHOTOS / "neuschwanstein.jpg", size=160)
pictures = {
    name: network.forward(large[None], style="the_kiss")[0]
    for name, network in (("smooth", net), ("nearest", swapped))
}
show(**{f"{name}, a corner": picture[:80, :80] for name, picture in pictures.items()}, columns=3)

# %% [markdown]
# How much do such lines stand out? Take the **spectrum** of the picture: it says how much of each frequency
# is in it. Divide the power at a period of 2 (or 4) pixels by the power at the frequencies next to it. 1
# means that nothing stands out; visible threads have 2 and more.

# %% tags=["check"]
for name, picture in pictures.items():
    peaks = metrics.axis_peaks(picture)
    print(f"{name:8} peak at period 2: {peaks[2]:.1f}, at period 4: {peaks[4]:.1f}")

# %% [markdown]
# (This network was trained with *smooth*, so the comparison exaggerates. Networks that were trained with
# *bilinear* enlargement had peaks from 1.2 to 2.0 at period 2 and from 1.5 to 4.1 at period 4, by style.)
#
# Does the objective *want* threads? No. What L-BFGS paints under the same objective has none (1.00 and 0.98),
# and the loss is the same when VGG looks at the picture shifted by a pixel. So they come from the network. To
# see where they begin, the spectrum was followed through a network that enlarges by the binomial weights 1,
# 5, 10, 10, 5, 1. The numbers are the peaks:
#
# | after | at half the size, period 2 | after | at the full size, period 4 |
# |---|---:|---|---:|
# | the first enlargement | 0.00 | the second enlargement | 3.11 |
# | its convolution | 0.03 | its convolution | 4.81 |
# | norm and ReLU | **5.25** | norm and ReLU | 1.99 |
#
# Enlargement and convolution have nothing at period 2. **ReLU makes it.** How? You can see it in one
# dimension.

# %% [markdown]
# The finest texture that the layers at a quarter of the size can draw changes its sign from pixel to pixel:
# $+, -, +, -$. It lies on their grid, everywhere with the same phase. Follow it: it is enlarged, goes through
# a convolution (here the mean of two neighbours), and then through ReLU.


# %%
def enlarged(x, even, odd):
    """Twice as many numbers; each is a weighted mean of x[i-2] ... x[i+2]."""
    near = np.stack([np.roll(x, shift) for shift in (2, 1, 0, -1, -2)])
    return np.stack([even @ near, odd @ near], axis=1).ravel()


def convolved(x):
    return 0.5 * (x + np.roll(x, -1))


bilinear = np.array([0, 0.25, 0.75, 0, 0])
texture = (-1.0) ** np.arange(8)
steps = {"texture, on the coarse grid": texture, "enlarged": enlarged(texture, bilinear, bilinear[::-1])}
steps["convolved"] = convolved(steps["enlarged"])
steps["after ReLU"] = np.maximum(steps["convolved"], 0)
figure, row = plt.subplots(1, 4, figsize=(9, 2), sharey=True, layout="constrained")
for axes, (name, signal) in zip(row, steps.items(), strict=True):
    axes.plot(signal, "o-", markersize=4)
    axes.axhline(0, color="gray", linewidth=0.5)
    axes.set(title=name, xlabel="pixel")
    axes.title.set_fontsize(10)
plt.show()

# %% [markdown]
# Enlarging weakens the texture to a half, but does not remove it. Before ReLU it goes up and down alike, a
# pure wave of period 4. ReLU cuts off one side. What is left, $\tfrac12, 0, 0, 0$, has a mean, a wave of
# period 4 *and one of period 2*: the **harmonic** at half the period. It lies on the grid again.
#
# A real texture is not so regular. Let its strength vary from place to place, add something slow, and look at
# the spectrum.
#
# **Predict before you run:** which of the three ways to enlarge leaves a peak at period 4? And which has one
# at period 2, after ReLU?

# %%
ways = {
    "nearest": np.array([0, 0, 1, 0, 0]),
    "bilinear": bilinear,
    "smooth": np.array([5, 20, 26, 12, 1]) / 64,
}


def smooth_noise(length):
    return np.convolve(rng.normal(size=length), np.hanning(20) / 5, "same")


def spectrum(signal):
    power = abs(np.fft.rfft((signal - signal.mean()) * np.hanning(signal.size))) ** 2
    return np.fft.rfftfreq(signal.size), np.convolve(power, np.ones(3) / 3, "same")


coarse = 0.5 * smooth_noise(1024) + (1 + 0.3 * smooth_noise(1024)) * (-1.0) ** np.arange(1024)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for name, weights in ways.items():
    signal = convolved(enlarged(coarse, weights, weights[::-1]))
    for axes, each in zip(panels, (signal, np.maximum(signal, 0)), strict=True):
        frequencies, power = spectrum(each)
        axes.semilogy(frequencies[::4], power[::4] + 1e-9, label=name, linewidth=1)
for axes, title in zip(panels, ("enlarged and convolved", "and after ReLU"), strict=True):
    axes.set(title=title, xlabel="period", ylim=(1e-5, 1e6))
    axes.set_xticks([1 / 16, 1 / 8, 1 / 4, 1 / 2], ["16", "8", "4", "2 pixels"])
panels[0].set_ylabel("power")
panels[0].legend()
plt.show()

# %% [markdown]
# Left: nearest and bilinear leave a peak at period 4, the texture itself, and nothing at 2. Right: ReLU has
# made a peak at period 2 out of it. *Smooth* has neither. It blurs by 1/4, 1/2, 1/4 *before* it enlarges, and
# that blur is exactly zero for $+, -, +, -$:

# %% tags=["check"]
blurred = 0.25 * np.roll(texture, 1) + 0.5 * texture + 0.25 * np.roll(texture, -1)
for name, weights in ways.items():
    left = abs(enlarged(texture, weights, weights[::-1])).max()
    print(f"{name:8} leaves of a texture of size 1: {left:.2f}")
print(f"blurred by 1/4, 1/2, 1/4: {abs(blurred).max():.2f}")

# %% [markdown]
# That is `--upsample smooth`. Put into the trained network, without a single step of training, it brought the
# peaks at period 4 from 3.72 to 1.20, from 2.03 to 1.02 and from 1.92 to 1.01 (three styles), and those at
# period 2 from 1.11, 1.80 and 1.14 to 0.95, 1.12 and 0.99.
#
# ## Cause 3: frames
#
# A convolution that pads with zeros sees a black line along the border. The paper's network therefore
# reflects 40 pixels before the first layer, and lets the residual blocks eat them up, but its other layers
# still pad with zeros. The gallery reflects *at each layer* (`--padding each`). That is 40 % fewer pixels to
# compute at 256 x 256, and leaves no frame. The same kernels with both:

# %%
outer = style_net(upsample="smooth", padding="outer", styles=net.styles)
outer.load(net.parameters())
pictures = {
    "at each layer": pictures["smooth"],
    "zeros in the layers": outer.forward(large[None], style="the_kiss")[0],
}
show(**{name: picture[:80, :80] for name, picture in pictures.items()}, columns=3)

# %% tags=["check"]
for name, picture in pictures.items():
    strongest = metrics.border_lines(picture).max()
    print(f"{name:20} strongest line along the border: {strongest:.1f} times the usual difference")

# %% [markdown]
# (Again the comparison exaggerates: a network that is trained with zeros learns to hide part of the frame.)
#
# ## Cause 4: bright spots
#
# Skies often get bright round spots. They look like the droplets that instance norm makes in StyleGAN (Karras
# et al., arXiv:1912.04958), but they are not: with every norm's input clipped at 3.5 standard deviations they
# stay where they are, and noise added to the photo does not move them. **The objective pays for them.** Try
# it: darken the brightest tenth of what the network paints, and ask again.

# %%
painted = net.forward(large[None], style="starry_night")[0]
grey = painted.mean(axis=2)
limit = np.quantile(grey, 0.9)
darkened = painted * np.minimum(1, limit / np.maximum(grey, 1))[..., None].astype(np.float32)
show(photo=large, painted=painted, darkened=darkened, columns=4)

# %% tags=["check"]
goal_of_night = goals[0]
targets_of_large = goal_of_night.targets(large[None])
for name, picture in (("painted", painted), ("darkened", darkened)):
    terms, _ = goal_of_night(picture[None], targets_of_large)
    content, style, total = (terms[key] / 1000 for key in ("content", "style", "total"))
    print(f"{name:9} content {content:.0f}, style {style:.0f}, total {total:.0f} thousand")

# %% [markdown]
# Without the spots the content is a little better and the style much worse. (`starry_night_single`: style
# from 78 to 103 thousand, content from 225 to 216; with the spots the total is better by 5 %.) A Gram matrix
# counts how much of a colour there is, not where. The Starry Night has a moon, and the cheapest place for a
# moon is where the photo is bright and smooth: there `relu3_3` has little to lose. A lower style weight makes
# the spots fewer, and so does training on.
#
# ## Tried without gain
#
# What is lost on the way through a quarter of the size could go past it: add the features before each
# shrinking to those after the enlargement, as a U-Net does. After two thirds of a trial the objective was 773
# thousand, against 375 without (one run). The content term was not lower, and the style term was three times
# as high, because the photo's own detail was in the way.
#
# ## Things to try
#
# - `net.forward(photo[None], style=net.mixture({name: 1 for name in net.styles}))`: all at once. What is the
#   mean of all painters?
# - Learn `night_cafe` or `pere_tanguy` in place of the road. Which row is nearest?
# - Learn only the gammas, or only the betas: give the other ones the rate 0 in `optimizer.rates`.
# - The difference of two rows is a direction. Add *the_kiss* minus *identity* to *great_wave*.
#
# ## What you have seen
#
# - **Conditional instance norm**: a table of gammas and betas, and a mixture that chooses from it. Two matrix
#   products forward, four backward. A row that is not used gets no gradient.
# - A style is 3,200 numbers. Mixtures of rows are styles, and better ones than blends of pictures. Strength
#   is a walk to the identity row.
# - A new painting is learnt in seconds as a row, starting from the nearest row.
# - Black pictures, threads, frames and bright spots each have a cause, and a cause can be measured.
#
# **In the papers:** Johnson et al. train one network for each style; conditional instance norm is equation 5
# of Dumoulin et al., arXiv:1610.07629. **In the library:** `ops/norms.py` holds `conditional_instance_norm`,
# thirty lines with its backward; `networks/style.py` the `mixture`; `training/style.py` looks for the nearest
# row and sets the rates; `tools/metrics.py` measures threads and frames. All styles and their numbers:
# `weights/gallery.md`.
#
# **Next:** the other half of the paper: small photos made large.
