# %% [markdown]
# # 15. Super-resolution
#
# **After this lesson you can** train a network that enlarges photos, derive the gradients of its new
# parts, and say what PSNR, SSIM, a distance in VGG's features and a spectrum each see of its results, and
# what each of them misses.
#
# A photo is shrunk to a quarter of its width and height: 15 of 16 pixels are gone. A network gets the
# small picture and enlarges it again, so it has to invent. This is the other half of the paper, and the
# question is the same as for painting: *what is a good picture?* You need lessons 4, 6, 8, 11 and 12.
# About 60 minutes.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, gradcheck, load_superres, losses, ops, show, super_resolution_net
from tinynst.data import images, photos
from tinynst.data.degradation import blur, shrink
from tinynst.optim import Adam
from tinynst.samples import PHOTOS
from tinynst.tools import metrics

# %% [markdown]
# ## One crop, five ways
#
# Two networks for four times the size ship. They have the same layers, and differ in the loss that they
# were trained with:
#
# - `superres_x4_pixel`: the **pixel loss**, the mean squared difference from the true photo (lesson 4);
# - `superres_x4_feature`: the **feature loss**, the same difference between VGG's features (eq. 2).
#
# The second is a **blend**: each of its weights is 40% of the pixel net's and 60% of a net that went on
# from there with the feature loss. We will see why. A blend can be undone. From
# $w_\text{blend} = w_\text{pixel} + 0.6\, (w_\text{feature} - w_\text{pixel})$ follows
#
# $$w_\text{feature} = w_\text{pixel} + \frac{w_\text{blend} - w_\text{pixel}}{0.6}$$

# %% tags=["cover"]
nets = {"pixel": load_superres("superres_x4_pixel")[0], "blend": load_superres("superres_x4_feature")[0]}
nets["feature"] = load_superres("superres_x4_feature")[0]
pixel, blend = nets["pixel"].parameters(), nets["blend"].parameters()
nets["feature"].load({name: pixel[name] + (blend[name] - pixel[name]) / 0.6 for name in pixel})


def enlarge(low, name):
    """A small picture (h, w, 3), enlarged four times by bicubic interpolation or by one of the nets."""
    low = low[None].astype(np.float32)
    return (ops.upsample_bicubic(low, 4)[0] if name == "bicubic" else nets[name].forward(low))[0]


ways = ("bicubic", "pixel", "blend", "feature")
truth = images.load(PHOTOS / "red_panda.jpg")[80:208, 200:328]
low = shrink(truth, 4)
results = {name: enlarge(low, name) for name in ways}
blocks = ops.upsample_nearest(low[None].astype(np.float32), 4)[0][0]
show(**{"the small picture": blocks}, **results, truth=truth, columns=3)

# %% [markdown]
# `bicubic` is what any image viewer does. `pixel` has sharper edges: look at the nose and the eyes.
# `feature` is grittier. Look closely at its cheek and its forehead: fine lines, like woven cloth, that no
# photo has. `blend` keeps a hint of them. None has the whiskers, and all are far from the truth. Which is
# best? This lesson asks four judges.
#
# ## Shrinking is part of the question
#
# A network learns to undo *one* way of shrinking. Here are three:
#
# - bicubic **with antialiasing**: each small pixel is a weighted mean of $16 \times 16$ large ones.
#   Pillow, MATLAB and the standard tests do this, and our nets were trained on it;
# - bicubic without it: a mean of only $4 \times 4$, and all other pixels are never looked at;
# - the paper's: a blur by a Gaussian of one pixel first, then bicubic.
#
# **Predict before you run:** which of the three small pictures does our net enlarge best? How many
# decibels (defined below; more is better) does another way of shrinking cost?

# %%
position = 4 * np.arange(32) + 1.5  # where the small pixels' middles lie in the large picture
t = abs(position[:, None] - np.arange(128))
cubic = np.where(t < 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2) * (t < 2)
skipping = np.einsum("ik,klc,jl->ijc", cubic, truth, cubic)

shrunk = {"antialiased": low, "not antialiased": skipping, "blurred first": shrink(truth, 4, "paper")}
show(**{name: np.clip(each, 0, 255).repeat(4, 0).repeat(4, 1) for name, each in shrunk.items()}, columns=3)

# %% tags=["check"]
y_truth = metrics.luma(truth)
for name, each in shrunk.items():
    psnr = [metrics.psnr(metrics.luma(enlarge(each, way)), y_truth) for way in ("bicubic", "pixel")]
    print(f"{name:16} bicubic enlargement {psnr[0]:.2f} dB, pixel net {psnr[1]:.2f} dB")

# %% [markdown]
# Without antialiasing the net is *worse than interpolation*: it sharpens the false edges of that small
# picture. The blur costs little, since one pixel of blur takes away hardly anything that shrinking by
# four would have kept. Remember this when a net disappoints on your own photos: a camera does not shrink
# as the training set did.
#
# ## Bicubic enlargement is a matrix
#
# Start with one row of pixels, $x$ with $w$ numbers. Each number of the enlarged row $y$ is a weighted
# mean of the four nearest old ones. So $y = D x$, with a matrix of $4w$ rows and $w$ columns, which is
# nearly empty:

# %%
from tinynst.ops.resampling import cubic_matrix  # noqa: E402

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=(1, 2))
drawn = axes[0].imshow(cubic_matrix(8, 4), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
axes[0].set_xlabel("old pixel")
axes[0].set_ylabel("new pixel")
figure.colorbar(drawn, ax=axes[0], label="weight")
step = np.array([50.0] * 4 + [200.0] * 4)
axes[1].plot((np.arange(8) + 0.5) * 4 - 0.5, step, "o", label="old row: an edge")
axes[1].plot(cubic_matrix(8, 4) @ step, ".-", label="enlarged")
axes[1].set_xlabel("place (new pixels)")
axes[1].set_ylabel("grey level")
axes[1].legend()
plt.show()

# %% tags=["check"]
D = cubic_matrix(8, 4)
print(f"each row of D adds up to 1: {np.allclose(D.sum(axis=1), 1)}; smallest weight {D.min():.4f}")
print(f"the edge from 50 to 200 becomes {min(D @ step):.1f} to {max(D @ step):.1f}")

# %% [markdown]
# The rows add up to 1, so a constant stays a constant. Some weights are negative, so the curve overshoots
# on both sides of an edge. But the ramp of four pixels remains: interpolation invents nothing.
#
# Now backward. If $x_k$ grows by $\epsilon$, each $y_i$ grows by $D_{ik}\,\epsilon$, and the loss by
# $\sum_i dy_i D_{ik}\,\epsilon$. So $dx_k = \sum_i D_{ik}\, dy_i$, that is
#
# $$dx = D^T dy$$
#
# The transposed matrix, as for every linear operation (lesson 6 called it the adjoint).
#
# ## Exercise: enlarge a picture
#
# For a picture $x$ $(h, w)$ there are two matrices: $D$ $(4h, h)$ mixes rows, $A$ $(4w, w)$ mixes
# columns. Write the enlargement and its gradient. The matrices are constants.


# %% tags=["exercise"]
def enlarge_by(x, D, A):
    """x (h, w), D (4h, h), A (4w, w). Returns (y of shape (4h, 4w), cache)."""
    raise NotImplementedError("not yet written")


def enlarge_by_backward(dy, cache):
    """dy (4h, 4w). Returns (dx of shape (h, w),)."""
    raise NotImplementedError("not yet written")


# %%
def check_enlarge_by(forward, backward):
    x = np.random.default_rng(0).normal(size=(5, 6))
    matrices = cubic_matrix(5, 4), cubic_matrix(6, 4)
    try:
        y = forward(x, *matrices)[0]
        if not np.allclose(y, ops.upsample_bicubic(x[None, :, :, None], 4)[0][0, :, :, 0]):
            return f"y, of shape {np.shape(y)}, is not bicubic enlargement: on which side does A stand?"
        return gradcheck(lambda x: forward(x, *matrices), backward, (x,), title="enlarge_by")
    except NotImplementedError:
        return "not written yet: fill in both functions in the cell above and run both cells again"


print(check_enlarge_by(enlarge_by, enlarge_by_backward))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `D @ x` mixes the rows of the picture, each column by itself. To mix columns, the matrix has to stand on
# the other side. For backward write $y_{ij}$ as a double sum over $x_{kl}$, and ask what $x_{kl}$ is
# multiplied with.
#
# </details>
# <details><summary>Hint 2</summary>
#
# $y = D x A^T$, that is $y_{ij} = \sum_{kl} D_{ik}\, x_{kl}\, A_{jl}$. If $x_{kl}$ grows by $\epsilon$,
# the loss grows by $\sum_{ij} dy_{ij} D_{ik} A_{jl}\,\epsilon$. So $dx = D^T dy\, A$.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def enlarge_by(x, D, A):
#     return D @ x @ A.T, (D, A)
#
#
# def enlarge_by_backward(dy, cache):
#     D, A = cache
#     return (D.T @ dy @ A,)
# ```
#
# </details>
#
# ## The network
#
# Table 2 of the paper's supplement: a convolution, four residual blocks (lesson 11) *at the small size*,
# then two enlargements with a convolution each, and a last convolution to three colours.

# %%
print(repr(nets["pixel"]))

# %% [markdown]
# Ours differs from the table in three points. Each made training short enough for a processor:
#
# - **Nearest enlargement** and a convolution stand in place of transposed convolutions, against
#   checkerboards (lesson 6).
# - **No norms**, but biases. An enlargement should keep contrast, and a norm takes it away (lesson 7).
# - **Residual learning.** The net does not make the picture; it makes what *bicubic enlargement lacks*.
#
# With $m$ for VGG's mean colour, $B$ for bicubic enlargement and $F$ for the layers:
#
# $$y = B x + F\!\left(\frac{x - m}{150}\right)$$
#
# The division brings the input to about $-1$ to $1$. What does $F$ add?

# %%
residual = results["pixel"] - results["bicubic"]
show(bicubic=results["bicubic"], **{"+ 3 F (grey is 0)": 128 + 3 * residual, "= pixel": results["pixel"]})

# %% [markdown]
# Edges, and nothing in smooth places. The picture itself, colours and all, need not be learnt.
#
# The gradient: $x$ reaches $y$ on two paths, so the slopes add (lesson 2). Let $x$ grow by $\epsilon$ in
# some direction. On the first path $y$ grows by $B \epsilon$. On the second, the input of $F$ grows by
# $\epsilon / 150$, and $y$ by $J \epsilon / 150$, with $J$ the Jacobian of $F$. Together
#
# $$dx = B^T dy + \frac{1}{150}\, dy \cdot J$$
#
# Check it against the library, and the library against differences, on a small net in float64. (A fresh
# net's last layer is nearly zero, see below; we make it larger, or $J$ would hardly count.)

# %% tags=["check"]
small = super_resolution_net(
    4, norm="none", upsample="nearest", residual=True, width=4, dtype=np.float64, seed=3
)
small.parameters()["out.w"][...] *= 100
rng = np.random.default_rng(0)
x, direction = rng.uniform(0, 255, (1, 6, 5, 3)), rng.normal(size=(1, 6, 5, 3))
dy = rng.normal(size=small.forward(x, training=True).shape)
dx = small.backward(dy)

small.forward(x, training=True)
through_layers = small.layers.backward(dy) / 150
D, A = cubic_matrix(6, 4), cubic_matrix(5, 4)
past_layers = np.einsum("ik,nijc,jl->nklc", D, dy, A)
print(f"largest |dx|: through F {abs(through_layers).max():.4f}, past it {abs(past_layers).max():.4f}")
print(f"their sum is the library's dx: {np.allclose(dx, through_layers + past_layers)}")

h = 1e-4
up, down = (np.sum(small.forward(x + step * direction) * dy) for step in (h, -h))
print(
    f"slope in a random direction: dx {np.sum(dx * direction):.6f}, differences {(up - down) / (2 * h):.6f}"
)

# %% [markdown]
# ## What does the pixel loss make it paint?
#
# The pixel net looks soft. Let us measure softness, and then *derive* it.
#
# A picture is a sum of waves. Each has a **frequency**: how many times it goes up and down per pixel. The
# finest is 0.5 cycles a pixel, $+1, -1, +1, -1$. The **Fourier transform** (`np.fft.fft2`) gives the
# strength of each wave. Its square is the wave's **energy**. The small picture holds nothing finer than
# 0.5 cycles a small pixel, which is **0.125 cycles a large pixel**. All above must be invented.
#
# We compare energies, band by band, on the middle of 27 photos.

# %%
side = 128
fade = np.hanning(side + 1)[:-1]  # the transform repeats the picture: let it fade out, or its rim is an edge
along = np.fft.fftfreq(side)
frequency = np.hypot(along[:, None], along)


def waves(picture):
    """The Fourier transform of a picture's brightness, (128, 128)."""
    y = metrics.luma(picture)
    return np.fft.fft2((y - y.mean()) * fade[:, None] * fade)


def middle(path):
    photo = images.load(path)
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    return photo[top : top + side, left : left + side]


truths = [middle(path) for path in sorted(PHOTOS.glob("*.jpg"))[::3]]
lows = [shrink(each, 4) for each in truths]
enlarged = {name: [enlarge(each, name) for each in lows] for name in ways}
T = np.array([waves(each) for each in truths])
Y = {name: np.array([waves(each) for each in enlarged[name]]) for name in ways}

# %% [markdown]
# **Predict before you run:** of the energy between 0.25 and 0.5 cycles a pixel, which share does each of
# the four paint?

# %%
edges = np.arange(0.01, 0.51, 0.02)
rings = [(frequency >= a) & (frequency < a + 0.02) for a in edges]


def energy(Y, where):
    return np.sum(abs(Y[:, where]) ** 2)


figure, axes = plt.subplots(figsize=(8, 3.6))
for name in ways:
    axes.semilogy(edges + 0.01, [energy(Y[name], ring) / energy(T, ring) for ring in rings], label=name)
axes.axhline(1, color="black", linewidth=0.8, label="truth")
axes.axvline(0.125, color="grey", linestyle=":", label="end of the small picture")
axes.set_ylim(1e-3, 2)
axes.set_xlabel("frequency (cycles a pixel)")
axes.set_ylabel("energy, relative to the truth's")
axes.legend(fontsize=8)
plt.show()

# %% tags=["check"]
bands = {"0.06 to 0.125": (0.0625, 0.125), "0.125 to 0.25": (0.125, 0.25), "0.25 to 0.5": (0.25, 0.5)}
bands = {name: (frequency >= low) & (frequency < high) for name, (low, high) in bands.items()}
for name in ways:
    shares = [f"{band}: {energy(Y[name], where) / energy(T, where):.3f}" for band, where in bands.items()]
    print(f"{name:8} energy at {',  '.join(shares)}")

# %% [markdown]
# All are far too soft. Why does the pixel loss not ask for more? Take the waves of one band as one long
# vector $Y$, and those of the truth as $T$. The squared error of the pixels is the squared error of the
# waves (Parseval's theorem, up to a constant). A dot means: multiply and add up. (For complex numbers:
# the real part of one times the conjugate of the other.) Suppose that the net made its waves $g$ times as
# strong:
#
# $$|gY - T|^2 = g^2\, Y \cdot Y - 2 g\, Y \cdot T + T \cdot T$$
#
# The slope with respect to $g$ is $2 g\, Y \cdot Y - 2\, Y \cdot T$. It is zero at the **best gain**
# $g = \frac{Y \cdot T}{Y \cdot Y}$. A net at the lowest place of the pixel loss cannot gain by making a
# band stronger or weaker, so its best gain is 1, and $Y \cdot Y = Y \cdot T$. Now let
# $\rho = \frac{Y \cdot T}{|Y|\,|T|}$ be the **correlation** of the two, which is 1 when the waves are
# known exactly and 0 when nothing is known. Then
#
# $$\frac{Y \cdot Y}{T \cdot T} = \frac{(Y \cdot T)^2}{(Y \cdot Y)(T \cdot T)} = \rho^2$$
#
# **A net of the pixel loss paints the share $\rho^2$ of the energy: as much as it is sure of.** Where it
# knows nothing, the best it can do is to paint nothing.
#
# **Predict before you run:** for which of the four will energy and $\rho^2$ agree? Whose best gain is
# above 1, whose below?

# %% tags=["check"]
for band, where in bands.items():
    for name in ways:
        painted, both = energy(Y[name], where), np.sum((Y[name] * T.conj()).real[:, where])
        share, rho2 = painted / energy(T, where), both**2 / painted / energy(T, where)
        if share > 0.001:
            print(f"{band:13} {name:8} energy {share:.3f}, rho^2 {rho2:.3f}, best gain {both / painted:.2f}")

# %% [markdown]
# The pixel net does what the formula says, in each band. Bicubic should be stronger where it knows
# something, which is what the pixel net has learnt.
#
# The feature net paints four times as much as the pixel net at the top. Its best gain there is about a
# quarter, and its $\rho^2$ nearly 0: *hardly any of it is in the right place*. What does that cost? Let
# $e$ be the energy relative to the truth's, and expand the error of the band once more:
#
# $$\frac{|Y - T|^2}{T \cdot T} = e + 1 - 2 \rho \sqrt{e}$$
#
# Nothing painted ($e = 0$): error 1. Perfect texture in places of its own ($e = 1$, $\rho = 0$): error
# **2**. So the squared error prefers no fur to wrong hairs. You do not. This is why PSNR and the eye
# disagree, and no training can make them agree where $\rho$ is small.
#
# ## Three measures
#
# **PSNR**, the peak signal-to-noise ratio, is the squared error in another unit, **decibels**. 3 dB more
# is half the error:
#
# $$\text{PSNR} = 10 \log_{10} \frac{255^2}{\text{mean of } (y - t)^2}$$
#
# **SSIM** compares windows of 11 x 11 pixels by their means $\mu$, their variances $\sigma^2$, and their
# covariance $\sigma_{yt}$, which says whether both go up and down together. (The small constants $c$
# avoid a division by zero.) It is 1 if both are equal:
#
# $$\frac{2 \mu_y \mu_t + c_1}{\mu_y^2 + \mu_t^2 + c_1} \cdot \frac{2 \sigma_{yt} + c_2}{\sigma_y^2 +
# \sigma_t^2 + c_2}$$
#
# **The distance** compares VGG's features. At each place of a layer they are a vector, which is brought
# to length 1: it says *what* is there, and no longer how strongly. The distance is $\|a - b\|^2$,
# averaged over all places and over five layers, `relu1_2` to `relu5_3`.

# %%
vgg = VGG16.load()


def distances(picture, truth):
    """{layer: distance}, of two pictures (H, W, 3)."""
    units = (metrics.unit_features(each.astype(np.float32), vgg) for each in (picture, truth))
    return metrics.perceptual_distance(*units)


def measured(picture, truth):
    y, t = metrics.luma(picture), metrics.luma(truth)
    return metrics.psnr(y, t), metrics.ssim(y, t), np.mean(list(distances(picture, truth).values()))


# %% tags=["check"]
for name, picture in results.items():
    psnr, ssim, distance = measured(images.to_uint8(picture), truth)
    print(f"{name:8} PSNR {psnr:.2f} dB   SSIM {ssim:.3f}   distance {distance:.3f}")

# %% [markdown]
# PSNR and SSIM say: pixel, blend, feature, bicubic. The distance says: feature, blend, pixel, bicubic.
# Each is right about what it measures. So what *do* they measure?
#
# ### Four pictures of the same PSNR
#
# We spoil a photo in four ways, each just as far that it costs as much squared error: 25 dB.

# %%
cat = images.load(PHOTOS / "chelsea.jpg")[40:232, 90:282]
random = np.random.default_rng(0).standard_normal(cat.shape)
means = cat.reshape(24, 8, 24, 8, 3).mean((1, 3)).repeat(8, 0).repeat(8, 1)
spoil = {
    "brighter": lambda amount: cat + 10 * amount,
    "noise": lambda amount: cat + 10 * amount * random,
    "blurred": lambda amount: blur(cat, amount),
    "blocks": lambda amount: cat + amount * (means - cat),
}
same = {}
for name, change in spoil.items():
    low_amount, high_amount = 0.01, 10.0
    for _ in range(25):  # halve the interval: more is worse
        amount = (low_amount + high_amount) / 2
        psnr = metrics.psnr(metrics.luma(images.to_uint8(change(amount))), metrics.luma(cat))
        low_amount, high_amount = (amount, high_amount) if psnr > 25 else (low_amount, amount)
    same[name] = images.to_uint8(change(amount))
show(photo=cat, **same, columns=3)

# %% [markdown]
# **Predict before you run:** order them as you would, then as SSIM would, then as the distance would.

# %% tags=["check"]
for name, picture in same.items():
    psnr, ssim, distance = measured(picture, cat)
    print(f"{name:9} PSNR {psnr:.1f} dB   SSIM {ssim:.2f}   distance {distance:.2f}")

# %% [markdown]
# Brighter by 16 grey levels is hardly noticed, and costs PSNR as much as a blur that takes the fur away.
# SSIM and the distance know better. They disagree about the worst: SSIM says the blur, the distance the
# blocks.
#
# ### Which waves does a measure see?
#
# You can ask any measure. Add noise of *one band* only, always with the same strength. The squared error
# is then the same in all bands. (Three of the seven are shown.)

# %%
limits = np.array([0.004, 0.02, 0.04, 0.08, 0.16, 0.25, 0.35, 0.5])
white = np.fft.fft2(np.random.default_rng(0).normal(size=(side, side)))
noisy = {}
for low_end, high_end in itertools.pairwise(limits):
    noise = np.fft.ifft2(white * ((frequency >= low_end) & (frequency < high_end))).real
    noisy[f"{low_end} to {high_end}"] = truth + 6 * (noise / noise.std())[:, :, None]
chosen = list(noisy)[0::3]
show(**{name: noisy[name] for name in chosen}, columns=3)

# %%
scores = np.array([measured(picture, truth) for picture in noisy.values()])
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
titles = ("PSNR (dB)", "1 - SSIM", "distance")
for axis, values, title in zip(axes, (scores[:, 0], 1 - scores[:, 1], scores[:, 2]), titles, strict=True):
    axis.semilogx(np.sqrt(limits[:-1] * limits[1:]), values, "o-")
    axis.set_ylim(0, 1.15 * max(values))
    axis.set_xlabel("frequency (cycles a pixel)")
    axis.set_title(title)
plt.show()

# %% tags=["check"]
for name, (psnr, ssim, distance) in zip(noisy, scores, strict=True):
    print(f"noise of {name:14} PSNR {psnr:.2f} dB   SSIM {ssim:.3f}   distance {distance:.3f}")

# %% [markdown]
# PSNR sees all waves alike. SSIM minds the fine ones more. The distance minds waves of 4 to 12 pixels
# most; at the very top of the spectrum it sees a quarter of that, and of the slowest waves less than a
# tenth.
#
# What the judge does not see, a net need not get right. Below 0.125 the feature net's waves are *weaker*
# than the truth's (see the table), although the small picture shows them: the picture loses contrast.
# This is why the paper matches the **histogram** of a result to that of the small picture, which gives
# each channel its distribution of values back. (`tinynst superres` does so for feature nets.)
#
# ## Is the judge the teacher?
#
# The feature net was trained to please VGG, at `relu2_2` and `relu3_3`. Now the same VGG judges it. So
# look at the layers one by one, relative to bicubic.

# %%
per_layer = {
    name: np.mean(
        [list(distances(y, t).values()) for y, t in zip(enlarged[name][::3], truths[::3], strict=True)],
        axis=0,
    )
    for name in ways
}
figure, axes = plt.subplots(figsize=(8, 3.2))
for shift, name in enumerate(ways[1:]):
    axes.bar(
        np.arange(5) + 0.25 * shift - 0.25, 100 * per_layer[name] / per_layer["bicubic"], 0.25, label=name
    )
axes.axhline(100, color="black", linewidth=0.8)
axes.set_xticks(range(5), metrics.DISTANCE_LAYERS)
axes.set_ylabel("distance, percent of bicubic's")
axes.set_ylim(0, 125)
axes.legend(loc="upper left", ncols=3)
plt.show()

# %% [markdown]
# What the feature net gains at its own two layers proves little. It gains at `relu4_3` and `relu5_3` too,
# which were not asked (but what is right at `relu3_3` is right behind it). At `relu1_2`, which lies
# *before* them, it is no better than the pixel net. An independent judge would be another network, or
# people. Zhang and others asked people which of two pictures is nearer to a third, and the answers agreed
# with such distances more often than with PSNR or SSIM
# ([arXiv:1801.03924](https://arxiv.org/abs/1801.03924)).
#
# ## Why our feature net is softer than the paper promises
#
# The paper's pictures are crisp. What ships here, the blend, paints at the top a few percent of the
# truth's energy. Why so little?
#
# **First, the blend.** Blending *weights* is nearly blending *pictures*. If the pixel net paints nothing
# of a wave, the blend paints 0.6 of its strength, which is $0.6^2 = 0.36$ of its energy.

# %% tags=["check"]
top = bands["0.25 to 0.5"]
mixed = 0.4 * Y["pixel"] + 0.6 * Y["feature"]
for name, each in (("feature", Y["feature"]), ("blended pictures", mixed), ("blended weights", Y["blend"])):
    print(f"{name:17} energy from 0.25 to 0.5 cycles a pixel: {energy(each, top) / energy(T, top):.3f}")

# %% [markdown]
# **Second, the other losses.** The feature net was trained with four terms: features, and three brakes,
# which are the pixel loss (weight 50), total variation (0.002), and a loss against grids (4000, see
# below). Which brake is the strongest? A step $y \leftarrow y - \epsilon g$ changes the waves by
# $-\epsilon G$, where $G$ is the transform of the gradient $g$, and the energy $|Y|^2$ of a band by
# $-2 \epsilon\, Y \cdot G$. So $-Y \cdot G$ says how hard a loss **pulls** at the energy of the band: up
# if positive, down if negative.
#
# **Predict before you run:** which of the three brakes is the strongest at the top?

# %%
terms = ("features", "pixels", "total variation", "grid loss")
pulls = []  # (photo, term, band)
for path in sorted(PHOTOS.glob("*.jpg")):
    t = middle(path)[None]
    y = enlarge(shrink(t[0], 4), "feature")[None]
    asked = ("relu2_2", "relu3_3")
    f_truth = vgg.forward(t, asked, training=False)
    df = {name: losses.feature_loss(f, f_truth[name])[1] for name, f in vgg.forward(y, asked).items()}
    gradients = (
        vgg.backward(df),
        losses.pixel_loss(y, t, 50.0)[1],
        losses.tv_loss(y, 0.002)[1],
        losses.grid_loss(y, t, 4000.0, period=4)[1],
    )
    pull = [-(waves(y[0]) * waves(g[0]).conj()).real for g in gradients]
    pulls.append([[each[where].sum() for where in bands.values()] for each in pull])
pulls = np.array(pulls) / np.mean(pulls, axis=0)[0, 2]
mean, uncertain = pulls.mean(axis=0), pulls.std(axis=0) / np.sqrt(len(pulls))

# %%
figure, axes = plt.subplots(figsize=(8, 3.4))
for k, name in enumerate(terms):
    axes.bar(np.arange(3) + 0.2 * k - 0.3, mean[k], 0.2, yerr=uncertain[k], label=name, capsize=2)
axes.axhline(0, color="black", linewidth=0.8)
axes.set_xticks(range(3), [f"{band} cycles a pixel" for band in bands])
axes.set_ylabel("pull at the energy\n(features, at the top: 1)")
axes.legend(fontsize=8, loc="upper left")
plt.show()

# %% tags=["check"]
for k, name in enumerate(terms):
    print(f"{name:16} pull at the top of the spectrum: {mean[k, 2]:+.2f}, uncertain by {uncertain[k, 2]:.3f}")

# %% [markdown]
# (The thin lines are the **standard error**: how far the mean of 80 photos may be off by chance. Without
# it one is easily fooled. With twelve photos the grid loss seemed to be the strongest brake.)
#
# The features ask for more energy at the top, and the brakes together take about half of that away. Total
# variation is the strongest, although its weight looks tiny: `tv_loss` is a *sum* over all pixels, the
# others are means. It brakes slow waves just as much, so part of the lost contrast is its work.
#
# **Third, time.** The other half of the pull is left over. The net was not yet where its losses wanted
# it: it had 2,000 steps of two crops, where the paper took 200,000 of four.
#
# But would more energy be better? Look at *what* the feature net paints up there.
#
# ## The lines
#
# Here are the spectra in two dimensions: frequency across to the right, down to the bottom, slow waves in
# the middle. Below them, a piece of the cheek, its brightness with three times the contrast.

# %%
spectra = {"truth": T, **{name: Y[name] for name in ways[1:]}}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained", sharey=True)
for axis, (name, each) in zip(axes, spectra.items(), strict=True):
    power = np.fft.fftshift(np.log10(np.mean(abs(each) ** 2, axis=0)))
    drawn = axis.imshow(power, cmap="magma", vmin=3.5, vmax=8.5, extent=(-0.5, 0.5, 0.5, -0.5))
    axis.set_title(name)
    axis.set_xlabel("cycles a pixel")
axes[0].set_ylabel("cycles a pixel")
figure.colorbar(drawn, ax=axes, label="log10 of the energy", shrink=0.8)
plt.show()

# %%
cheek = [metrics.luma(each)[52:92, 84:124] for each in (truth, *results.values())]
cheek = [128 + 3 * (each - blur(each[:, :, None], 4)[:, :, 0]) for each in cheek]
show(**dict(zip(("truth", *ways), cheek, strict=True)), columns=5)

# %% [markdown]
# A photo has waves of all directions. The net's extra energy is in *spots*, along the two axes only, at
# about $\frac38$ of a cycle a pixel. (The paper sees a pattern over its own results, too, "under
# magnification".)
#
# Why do nets make patterns? The last layers turn each small pixel into $4 \times 4$ large ones. Where the
# net is unsure of a texture, it can still offer VGG something rich in edges, and the cheapest is the same
# 16 values everywhere.
#
# `grid_loss` should forbid this. It takes the error $d = y - t$ in squares of $2 \times 2$ small pixels.
# The mean over the four small pixels, for each of the 16 places, is $\bar d$: real texture mostly cancels
# there, a pattern that repeats does not. The loss is the mean of $(\bar d - \text{mean of } \bar d)^2$.
#
# Its gradient, in steps. Let $q_p$, $p = 1 \dots 16$, be the numbers $\bar d_p$ of a square less their
# mean, and let there be $M$ of them in the whole picture, so $L = \frac1M \sum q_p^2$.
#
# - The slope of $L$ with respect to $q_p$ is $\frac{2}{M} q_p$.
# - $q_p = \bar d_p - \frac{1}{16}\sum_r \bar d_r$. So $\bar d_p$ receives
#   $\frac{2}{M}\left(q_p - \frac{1}{16} \sum_r q_r\right)$, and the $q$ of a square add up to zero:
#   $\frac{2}{M} q_p$.
# - $\bar d_p$ is the mean of four pixels. Each receives a quarter: $\frac{2}{4M} q_p$.


# %%
def grid_loss(y, t):
    """y and t (8a, 8b), one channel. Returns (value, gradient with respect to y)."""
    h, w = y.shape
    d = (y - t).reshape(h // 8, 2, 4, w // 8, 2, 4)  # squares, small pixels, places; the same across
    q = d.mean(axis=(1, 4))  # (h/8, 4, w/8, 4)
    q = q - q.mean(axis=(1, 3), keepdims=True)
    dy = np.broadcast_to(2 / (4 * q.size) * q[:, None, :, :, None], d.shape)
    return np.mean(q**2), dy.reshape(h, w)


# %% tags=["check"]
y, t, direction = rng.normal(size=(3, 16, 24))
value, dy = grid_loss(y, t)
library_value, library = losses.grid_loss(y[None, :, :, None], t[None, :, :, None], period=4)
slope = (grid_loss(y + 1e-5 * direction, t)[0] - grid_loss(y - 1e-5 * direction, t)[0]) / 2e-5
print(
    f"value {value:.6f}, library {library_value:.6f}; gradients agree: {np.allclose(dy, library[0, :, :, 0])}"
)
print(f"slope in a random direction: gradient {np.sum(dy * direction):.8f}, differences {slope:.8f}")

# %% [markdown]
# So why are there lines? Give the loss pure waves, $\cos(2 \pi u x)$, and see what it charges for each
# frequency $u$. The mean of two neighbouring small pixels adds places that are 4 large pixels apart:
#
# $$\cos a + \cos(a + 8 \pi u) = 2 \cos(4 \pi u)\, \cos(a + 4 \pi u)$$
#
# The factor $\cos(4 \pi u)$ is zero at $u = \frac18$ and at $u = \frac38$. There the two cancel, and the
# wave costs nothing.

# %%
u = np.arange(1, 65) / side
charged = []
for each in u:  # a cosine and a sine, so that it does not matter where the wave begins
    phase = 2 * np.pi * each * np.tile(np.arange(side), (8, 1))
    charged.append(
        np.mean([grid_loss(wave, np.zeros_like(wave))[0] for wave in (np.cos(phase), np.sin(phase))])
    )
near_axis = abs(along) < 0.15
figure, axes = plt.subplots(figsize=(8, 3.4))
for name in ("pixel", "feature"):
    ratio = np.mean(abs(Y[name]) ** 2, axis=0)[near_axis].mean(axis=0)
    ratio = ratio / np.mean(abs(T) ** 2, axis=0)[near_axis].mean(axis=0)
    axes.plot(u[:-1], ratio[1:64], label=f"{name}: energy, relative to the truth's")
axes.plot(u, charged, "--", color="grey", label="what the grid loss charges for a wave")
axes.axvline(3 / 8, color="grey", linewidth=0.8)
axes.set_xlim(0, 0.5)
axes.set_ylim(0, 1.2)
axes.set_xlabel("frequency across (cycles a pixel)")
axes.legend(fontsize=8)
plt.show()

# %% tags=["check"]
free = u[np.isclose(charged, 0, atol=1e-12)]
line = np.mean(abs(Y["feature"]) ** 2, axis=0)[near_axis].mean(axis=0)[: side // 2]
peak = along[: side // 2][40 + line[40:].argmax()]
print(f"waves that cost nothing: {free} cycles a pixel; the feature net's lines: {peak:.3f}")

# %% [markdown]
# **The net found the hole in the loss.** The grid loss did its work at $\frac14$ and $\frac12$, where a
# pattern repeats with every small pixel. What is left changes its sign from one small pixel to the next,
# and the loss does not see it. A loss is all that a net knows of our wishes.
#
# Blending, the second remedy, makes the lines fainter, and all the rest with them. That is the trade of
# the weights that ship. (What else was tried is in [the tables](super_resolution/results.md), with
# numbers.)
#
# ## Train twice the size for a minute
#
# Your turn. A small net, 16 channels, twice the size. First the pixel loss, with everything in the open.

# %%
dataset = photos.open_dataset(PHOTOS, side=256)
test_low = shrink(truth, 2)


def pixel_step(net, high):
    """One batch of photos `high` (N, H, W, 3) through the net and back. Returns the loss."""
    small = np.stack([shrink(photo, 2) for photo in high]).astype(np.float32)
    y = net.forward(small, training=True)
    value, dy = losses.pixel_loss(y, high)
    net.backward(dy, need=("w",))  # not with respect to the photos
    return value


def fresh(residual=True):
    return super_resolution_net(2, norm="none", upsample="nearest", residual=residual, width=16, seed=0)


def test_psnr(net):
    y = net.forward(test_low[None].astype(np.float32))[0]
    return metrics.psnr(metrics.luma(images.to_uint8(y)), y_truth)


def train(net, step, steps, lr):
    """Train; returns the PSNR of the test photo after every tenth step."""
    adam, curve = Adam(net.parameters(), lr), [test_psnr(net)]
    with photos.batches(dataset, batch=4, size=48, seed=1, scale=(0.0, 0.5)) as loaded:
        for k in range(1, steps + 1):
            step(net, next(loaded))
            adam.lr = lr * min(1, k / 20, 2 * (1 - k / steps))  # rises, stays, falls to zero
            adam.step(net.gradients())
            if k % 10 == 0:
                curve.append(test_psnr(net))
    return curve


# %% [markdown]
# **Predict before you run:** we train with residual learning and without. Where does each begin, and how
# long does the second take to be better than bicubic?

# %%
mine, plain = fresh(), fresh(residual=False)
curves = {"residual": train(mine, pixel_step, 200, 2e-3), "not residual": train(plain, pixel_step, 200, 2e-3)}
bicubic = metrics.psnr(
    metrics.luma(images.to_uint8(ops.upsample_bicubic(test_low[None].astype(np.float32), 2)[0][0])), y_truth
)
figure, axes = plt.subplots(figsize=(7, 3.2))
for name, curve in curves.items():
    axes.plot(10 * np.arange(len(curve)), curve, label=name)
axes.axhline(bicubic, color="grey", linestyle=":", label="bicubic")
axes.set_xlabel("step")
axes.set_ylabel("PSNR of the test photo (dB)")
axes.legend()
plt.show()

# %% [markdown]
# The residual net *starts* as bicubic enlargement: its last layer's weights begin at a hundredth of their
# usual size. (Not at zero: then no gradient would pass through them to the layers before.) All of its
# time goes into what bicubic lacks. The other one spends its time learning to copy a picture.

# %%
crop = np.s_[40:104, 30:94]
mine_y = mine.forward(test_low[None].astype(np.float32))[0]
bicubic_y = ops.upsample_bicubic(test_low[None].astype(np.float32), 2)[0][0]
show(bicubic=bicubic_y[crop], **{"a minute of training": mine_y[crop]}, truth=truth[crop])

# %% [markdown]
# ## Exercise: train with the feature loss
#
# Write `feature_step`: as `pixel_step`, but the loss compares the features at `relu2_2` (the paper's
# layer). The gradient goes back through VGG to the pixels, and from there through the net.


# %% tags=["exercise"]
def feature_step(net, high):
    """One batch of photos `high` (N, H, W, 3) through the net, VGG and back, so that net.gradients() holds
    the gradients. Returns the loss: eq. 2 at relu2_2."""
    raise NotImplementedError("not yet written")


# %%
def check_feature_step(step):
    high = np.stack([middle(path)[:32, :32] for path in sorted(PHOTOS.glob("*.jpg"))[:2]])
    net = fresh()
    try:
        value = step(net, high)
    except NotImplementedError:
        return "not written yet: fill in feature_step in the cell above and run both cells again"
    wanted = vgg.forward(high, "relu2_2", training=False)["relu2_2"]
    small = np.stack([shrink(photo, 2) for photo in high]).astype(np.float32)

    def loss():
        f = vgg.forward(net.forward(small), "relu2_2", training=False)["relu2_2"]
        return losses.feature_loss(f, wanted)[0]

    if value is None or not np.isclose(value, loss(), rtol=1e-4):
        return f"the loss is {value}, it should be {loss():.6g}"
    gradients = net.gradients()
    if not gradients:
        return "net.gradients() is empty: net.backward was not called, or without need=('w',)"
    w, g = net.parameters()["out.w"], gradients["out.w"]
    direction = g / abs(g).max()
    w += 1e-4 * direction
    up = loss()
    w -= 2e-4 * direction
    slope, expected = np.sum(g * direction), (up - loss()) / 2e-4
    if np.isclose(slope, expected, rtol=0.02):
        return "right: the gradients agree with differences"
    return (
        f"the slope along your gradient is {slope:.4g}, differences say {expected:.4g}. If one is twice the "
        "other, look for a factor. Otherwise: did a second forward pass through VGG replace its cache? Give "
        "the target's training=False"
    )


print(check_feature_step(feature_step))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Four steps more than in `pixel_step`: features of the truth, features of `y`, the loss of the two,
# backward through `vgg`. Only one of the two forward passes may leave a cache.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `vgg.backward({"relu2_2": df})` returns the gradient with respect to the pixels. That is the net's `dy`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def feature_step(net, high):
#     small = np.stack([shrink(photo, 2) for photo in high]).astype(np.float32)
#     target = vgg.forward(high, "relu2_2", training=False)["relu2_2"]
#     y = net.forward(small, training=True)
#     f = vgg.forward(y, "relu2_2")["relu2_2"]
#     value, df = losses.feature_loss(f, target)
#     net.backward(vgg.backward({"relu2_2": df}), need=("w",))
#     return value
# ```
#
# </details>
#
# When it is right, train for a minute, from the pixel net:


# %%
def a_minute_of(step):
    net = fresh()
    net.load({name: array.copy() for name, array in mine.parameters().items()})
    train(net, step, 120, 1e-3)
    y = net.forward(test_low[None].astype(np.float32))[0]
    for name, picture in (("pixel", mine_y), ("feature", y)):
        psnr, ssim, distance = measured(picture, truth)
        share = np.sum(abs(waves(picture)[top]) ** 2) / np.sum(abs(waves(truth)[top]) ** 2)
        print(f"{name:8} PSNR {psnr:.2f}  SSIM {ssim:.3f}  distance {distance:.3f}  top energy {share:.2f}")
    return show(pixel=mine_y[crop], feature=y[crop], truth=truth[crop])


# a_minute_of(feature_step)

# %% [markdown]
# With us the energy at the top rose from 0.19 of the truth's to 0.38, and the PSNR fell by 0.2 dB: the
# trade that you derived, in a minute. There is no grid loss in this one. Train longer, and look for
# lines.
#
# ## The paper's figures and ours
#
# Four times, mean over the five images of Set5, measured as all papers do (PSNR and SSIM of the
# brightness):
#
# | | PSNR / SSIM | distance | the paper's PSNR / SSIM |
# |---|---|---|---|
# | bicubic | 28.43 / 0.8111 | 0.388 | 28.43 / 0.8114 |
# | pixel loss | 30.68 / 0.8693 | 0.279 | 28.40 / 0.8205 |
# | feature loss (the blend) | 30.51 / 0.8643 | 0.262 | 27.09 / 0.7680 |
#
# The paper's own pixel net is no better than bicubic: it did not start from there. Its feature net loses
# 1.3 dB against its pixel net, ours 0.2. Very likely it paints more, and pays what you derived. [All
# tables](super_resolution/results.md): Set14, BSD100, eight times, each step of the measuring and what it
# is worth (up to 1.7 dB for the same pictures!), and the grid.
#
# ## Do it large
#
# ```sh
# tinynst superres photo.jpg --factor 4 -o large.png
# tinynst evaluate superres --factor 4 -o measured/
# tinynst train_superres --factor 2 --loss pixel --content photos/ --degradation bicubic --norm none \
#     --upsample nearest --residual --batch 4 --image-size 96 --iterations 600
# ```
#
# The last one is how `superres_x2_pixel` was made; its card in `weights/` has the learning rates. Then try:
#
# - `--loss feature --feature-layers relu4_3`: what does a net paint that is asked for `relu4_3` alone?
#   (Lesson 8 inverted that layer.)
# - Eight times: `superres_x8_pixel` and `superres_x8_feature`. Where does their energy end?
# - A grid loss without a hole. Squares of *three* small pixels leave others free: which? Is there a wave
#   that both leave free?
#
# ## What you have seen
#
# - The net adds what bicubic enlargement lacks: $dx = B^T dy + \frac{1}{150} dy \cdot J$.
# - A net of the pixel loss paints the share $\rho^2$ of each band's energy: as much as it is sure of.
#   Perfect texture in places of its own has twice the squared error of no texture.
# - PSNR sees all waves alike, SSIM the fine ones more, VGG those of 4 to 12 pixels.
# - Our feature net is soft because it is blended, because total variation and the grid loss pull against
#   the features, and because it was trained for a short time. Most of what it paints at the top is lines,
#   through a hole in the grid loss.
#
# **In the paper:** section 3.2 (the losses), 4.2 (super-resolution), Table 2 of the supplement. **In the
# library:** `networks/superres.py` is the net, `training/superres.py` a step of its training,
# `tools/metrics.py` the measures, `losses.py` the grid loss.
#
# **Next:** where the time goes, and how to make NumPy fast.
