# %% [markdown]
# # 10. The picture is the parameter
#
# **After this lesson you can** turn a photo into a painting without any painting network, by changing its
# pixels, and you can say what plain descent, Adam and L-BFGS each do with the same gradient, and why the
# last is the fastest here.
#
# About 50 minutes. You need lessons 1, 8 and 9.
#
# In 2015, Gatys, Ecker and Bethge had this idea: take the two losses, and let the *picture itself* be what
# is learnt. Here it is at work. The photo turns into the painting, frame by frame.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, show
from tinynst.data import images
from tinynst.losses import StyleObjective
from tinynst.optim import LBFGS, Adam
from tinynst.samples import PHOTOS, STYLES

vgg = VGG16.load()
photo = images.load(PHOTOS / "chelsea.jpg", size=80)[:, 16:96]
painting = images.load(STYLES / "starry_night.jpg", size=112, side="long")
style_layers = dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 3.0)
objective = StyleObjective(vgg, painting[None], content={"relu3_3": 1.0}, style=style_layers, tv=1e-6)
targets = objective.targets(photo[None])


def run(make_step, evaluations=60, watch=()):
    """Start from the photo. Returns the total at each evaluation, the best picture, and those to watch."""
    y = photo[None].copy()
    step, values, frames, best = make_step(y), [], {}, None
    for k in range(evaluations + 1):
        terms, dy = objective(y, targets)
        values.append(terms["total"])
        if not values[-1] < 100 * values[0]:
            break  # it explodes
        if values[-1] <= min(values):
            best = y[0].copy()
        if k in watch:
            frames[f"after_{k}"] = best
        step(dy, values[-1])  # changes y in place
    return values, best, frames


def by_lbfgs(first_step):
    def make_step(y):
        optimizer = LBFGS(y, first_step=first_step)
        return lambda dy, value: optimizer.step(dy, value)

    return make_step


curves, results = {}, {}
curves["L-BFGS"], results["LBFGS"], frames = run(by_lbfgs(10.0), watch=(0, 4, 6, 8, 10, 15, 30, 60))
show(**frames)

# %% [markdown]
# Sixty times VGG was asked: *how good is this picture, and in which direction should each pixel go?*
# Nothing else happened. Read `run` again: there is no network that paints. `y` is the parameter, all 19,200
# numbers of it.
#
# (On the way the dark eyes turn bluer than blue. Nothing keeps the numbers between 0 and 255 here, and the
# loss itself puts it right later.)
#
# ## One question, three answers
#
# The objective gives a value and a gradient of the picture's own shape (content, style and total variation:
# eq. 5 of the paper, without its network). First make sure that the gradient is right, along a random
# direction:

# %% tags=["check"]
terms, dy = objective(photo[None], targets)
direction = np.random.default_rng(0).normal(size=photo.shape)
h = 0.02
up, down = (objective.value((photo + step * direction)[None].astype(np.float32), targets) for step in (h, -h))
print(f"content {terms['content']:.0f}, style {terms['style']:,.0f}")
close = np.isclose(np.sum(dy[0] * direction), (up - down) / (2 * h), rtol=0.02)
print(f"gradient and differences agree to 2 %: {close}")

# %% [markdown]
# (Content is 0, because we start from the photo. float32 and a sum of millions of terms allow no more than
# a rough comparison; lesson 8 made the exact one.)
#
# What one does with this gradient is the **optimiser's** business. **Plain descent** is lesson 1: a step
# against the gradient.


# %%
def by_descent(lr):
    def make_step(y):
        def step(dy, value):
            y[...] -= lr * dy

        return step

    return make_step


with np.errstate(over="ignore", invalid="ignore"):
    for lr in (0.1, 1.0, 2.0):
        values, picture, _ = run(by_descent(lr))
        curves[f"descent, lr {lr:g}"] = values
        if lr == 1.0:
            results["descent"] = picture
        print(f"lr {lr:3}: {values[0]:,.0f} at first, {values[-1]:.3g} after {len(values) - 1} steps")

# %% [markdown]
# The edge of lesson 1: a rate of 1 works, 2 explodes. And one rate has to do for all pixels and all
# directions.
#
# **Adam** (lesson 12 derives it) divides each number's gradient by the usual size of that number's
# gradient. So each pixel moves by about `lr` in each step, whatever the gradient. For a picture this makes
# the rate easy to choose: it is in *grey levels*.
#
# **Predict before you run:** which learning rate is sensible for Adam here: 0.001, as for networks, or 10?


# %%
def by_adam(lr):
    def make_step(y):
        optimizer = Adam({"picture": y}, lr=lr)
        return lambda dy, value: optimizer.step({"picture": dy})

    return make_step


curves["Adam, lr 10"], results["Adam"], _ = run(by_adam(10))
print(f"Adam: {curves['Adam, lr 10'][-1]:,.0f}, L-BFGS: {min(curves['L-BFGS']):,.0f}")

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.8))
for name, values in curves.items():
    axes.semilogy(values, label=name)
axes.set_ylim(1e5, 1e7)
axes.set_xlabel("evaluations of objective and gradient")
axes.set_ylabel("objective")
axes.legend()
plt.show()

# %%
show(photo=photo, **results)

# %% [markdown]
# With a rate of 0.001, sixty steps of Adam would move no pixel by more than 0.06 grey levels.
#
# The curves are the result of this lesson. Adam is ahead for some steps, with a rate that we chose from 2,
# 5, 10 and 20. L-BFGS ends lowest, and *nobody chose a learning rate for it*, only the length of its very
# first step. How does it know how far to go?
#
# ## A valley in two dimensions
#
# Back to where we can see everything: two parameters, one narrow valley, tilted.
#
# $$L(p) = \tfrac12\, p^T A\, p$$
#
# The matrix $A$ holds the second derivatives. Its eigenvalues are the curvatures of lesson 1: here 1 along
# the valley and 30 across it. The gradient is $g = A p$.

# %%
turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
A = turn @ np.diag([1.0, 30.0]) @ turn.T
start = np.array([-2.0, 0.6])


def walk(make_step, steps):
    p = start.copy()
    step, path = make_step(p), [p.copy()]
    for _ in range(steps):
        step(A @ p, 0.5 * p @ A @ p)
        path.append(p.copy())
    return np.array(path)


def valley_lbfgs(p):
    optimizer = LBFGS(p, first_step=0.3)
    return lambda g, value: optimizer.step(g, value)


def valley_adam(p):
    optimizer = Adam({"p": p}, lr=0.2)
    return lambda g, value: optimizer.step({"p": g})


def valley_descent(p):
    def step(g, value):
        p[...] -= 0.06 * g

    return step


paths = {
    "descent, lr 0.06": walk(valley_descent, 12),
    "Adam, lr 0.2": walk(valley_adam, 12),
    "L-BFGS": walk(valley_lbfgs, 12),
}
figure, row = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
a, c = np.meshgrid(np.linspace(-2.4, 1, 80), np.linspace(-1.6, 1.2, 80))
heights = 0.5 * (A[0, 0] * a * a + 2 * A[0, 1] * a * c + A[1, 1] * c * c)
for axes, (name, path) in zip(row, paths.items(), strict=True):
    axes.contourf(a, c, np.log(heights + 0.05), levels=25, cmap="viridis")
    axes.plot(*path.T, ".-", color="white", linewidth=1)
    axes.plot(*path[0], "o", color="red")
    axes.plot(0, 0, "x", color="red")
    axes.set_title(f"{name}: loss {0.5 * path[-1] @ A @ path[-1]:.1g}", fontsize=10)
    axes.set_xlim(-2.4, 1)
    axes.set_ylim(-1.6, 1.2)
plt.show()

# %% [markdown]
# Twelve evaluations each. Plain descent jumps from wall to wall, at first even out of the picture. Adam
# moves both numbers by the same length, so it walks straight through the floor of the valley and up the
# other side, and has to come back. L-BFGS needs a few steps to find out what the valley is like, and then
# goes along it to the cross.
#
# ## Newton's step
#
# Suppose we knew $A$. Where is the bottom? After a step $s$ the gradient is $A(p + s) = g + A s$. At the
# bottom it is zero, so
#
# $$s = -A^{-1} g$$
#
# That is **Newton's step**. It divides by the curvature, in each direction by its own: long steps where it
# is flat, short ones where it is steep. In our valley it arrives at once.

# %% tags=["check"]
step = -np.linalg.inv(A) @ (A @ start)
print("start", start, "step", np.round(step, 6), "arrives at", np.round(start + step, 6) + 0.0)
for side in (80, 256):
    n = side * side * 3
    print(f"a picture of {side}x{side}: A has {n * n:.1e} numbers, {n * n * 4 / 1e9:.1f} GB")

# %% [markdown]
# There is the difficulty. Nobody can build $A$ for a picture, and nobody can invert it.
#
# ## What a step teaches
#
# But we get information for nothing. Take any step $s$. The gradient changes from $g$ to $g + A s$. Call
# the change $y$:
#
# $$y = A s$$
#
# So every step that we have taken shows what $A$ does in *one* direction. An estimate $H$ of $A^{-1}$
# should agree: it should turn $y$ back into $s$,
#
# $$H y = s$$
#
# **BFGS** (Broyden, Fletcher, Goldfarb, Shanno, 1970) takes an estimate $H$ and repairs it, so that it
# agrees with a new pair. With $\rho = 1 / (s \cdot y)$:
#
# $$H_{new} = (I - \rho\, s y^T)\, H\, (I - \rho\, y s^T) + \rho\, s s^T$$
#
# Check that it does what we want. Multiply with $y$, from the right:
#
# - $(I - \rho\, y s^T)\, y = y - \rho\, y\, (s \cdot y) = y - y = 0$. The first term is gone, whatever $H$
#   was.
# - $\rho\, s s^T y = \rho\, s\, (s \cdot y) = s$. The second term gives exactly $s$.
#
# What the old $H$ knew about other directions stays, as far as possible. In numbers:


# %%
def repaired(H, s, y):
    """The BFGS update of an estimate of the inverse of A."""
    rho, one = 1 / (s @ y), np.eye(len(s))
    return (one - rho * np.outer(s, y)) @ H @ (one - rho * np.outer(y, s)) + rho * np.outer(s, s)


# %% tags=["check"]
rng = np.random.default_rng(0)
H = np.eye(2)
for _ in range(4):
    s = rng.normal(size=2)
    H = repaired(H, s, A @ s)
    print("H y = s:", f"{abs(H @ A @ s - s).max() < 1e-12!s:6}", "H A =", np.round(H @ A, 2).tolist())

# %% [markdown]
# Before the first pair $H A$ was $A$ itself, with 30 in its steep direction. Already after one pair it is
# near to the identity matrix: $H$ learns the inverse.
#
# ## L-BFGS: two loops in place of a matrix
#
# $H$ is still too large. But we never need $H$. We need $H g$, one vector. So keep only the last twenty
# pairs $(s, y)$ (the **L** is for *limited memory*) and work the product out, factor by factor, from the
# right. For one pair:
#
# $$H_{new}\, g = (I - \rho\, s y^T)\; H\, \underbrace{(I - \rho\, y s^T)\, g}_{q} + \rho\, s\, (s \cdot g)$$
#
# 1. Let $\alpha = \rho\,(s \cdot g)$. Then $q = g - \alpha\, y$.
# 2. Apply the older estimate: $r = H q$.
# 3. $H_{new}\, g = r - \rho\, (y \cdot r)\, s + \alpha\, s = r + (\alpha - \rho\,(y \cdot r))\, s$.
#
# Step 2 is the same job with one pair less. So steps 1 happen for all pairs, from the newest to the oldest:
# the **first loop**. At the bottom stands a first guess, a single number times $q$. Then steps 3 happen,
# from the oldest to the newest: the **second loop**. Only dot products and sums of vectors, two for each
# pair.
#
# The first guess says how long steps are on the whole. The newest pair knows: $s \cdot y / y \cdot y$ is
# about one over the curvature.
#
# ## Exercise: the two loops
#
# Write them. `pairs` is a list of `(s, y)`, the newest last. The result is $H g$ (the step will be its
# negative). With no pairs, return `g`.


# %%
def two_loops(g, pairs):
    """H g, where H is the L-BFGS estimate of the inverse of the second derivatives. g: (n,)."""
    raise NotImplementedError("not yet written")


# %%
def check_two_loops(function):
    rng = np.random.default_rng(2)
    n, g = 6, np.random.default_rng(3).normal(size=6)
    root = rng.normal(size=(n, n))
    curvatures = root @ root.T + np.eye(n)
    pairs = [(s, curvatures @ s) for s in rng.normal(size=(3, n))]
    try:
        mine = function(g.copy(), list(pairs))
    except NotImplementedError:
        return "not written yet: fill in two_loops in the cell above and run both cells again"

    def by_matrix(pairs, guess=None):
        s, y = pairs[-1]
        H = np.eye(n) * ((s @ y) / (y @ y) if guess is None else guess)
        for s, y in pairs:
            H = repaired(H, s, y)
        return H @ g

    if np.allclose(mine, by_matrix(pairs)):
        return "right: the same as the matrix, without the matrix"
    for wrong, why in (
        (
            by_matrix(pairs[::-1]),
            "the order is turned around: the first loop goes from the newest to the oldest",
        ),
        (by_matrix(pairs, 1.0), "the first guess is missing: multiply q by s.y / y.y of the newest pair"),
        (-by_matrix(pairs), "the sign is turned around: the result is H g, not the step"),
    ):
        if np.allclose(mine, wrong):
            return why
    return "not yet: compare with steps 1 to 3. Is alpha computed from q as it is at that moment?"


print(check_two_loops(two_loops))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Start with `q = g.copy()`, and keep the alphas of the first loop in a list: the second loop uses them in
# the opposite order.
#
# </details>
# <details><summary>Hint 2</summary>
#
# First loop, over `reversed(pairs)`: `alpha = (s @ q) / (s @ y)`, then `q = q - alpha * y`. Second loop,
# over `pairs`: `q = q + (alpha - (y @ q) / (s @ y)) * s`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def two_loops(g, pairs):
#     q, alphas = g.copy(), []
#     for s, y in reversed(pairs):
#         alphas.append((s @ q) / (s @ y))
#         q = q - alphas[-1] * y
#     if pairs:
#         s, y = pairs[-1]
#         q = q * (s @ y) / (y @ y)
#     for (s, y), alpha in zip(pairs, reversed(alphas)):
#         q = q + (alpha - (y @ q) / (s @ y)) * s
#     return q
# ```
#
# </details>
#
# ## How long is the first step, and what if a step is too long?
#
# Two things are left.
#
# - **The first step has no pairs.** Many programs begin with a step of total length 1. Spread over 19,200
#   numbers, that moves no pixel visibly, and some evaluations are spent on finding it out. The library lets
#   the pixel that moves most move by `first_step` grey levels: 10.
# - **The valley is not a parabola.** A step of length 1 along $-H g$ is nearly right, but sometimes too
#   long. Then it must be taken back. The **strong Wolfe conditions** say when a step is good: the value has
#   fallen by enough, and the slope along the step has become flatter. If not, another length on the same
#   line is tried: a **line search**.
#
# See what the first step is worth. The second run starts with a largest move of 0.05 grey levels.

# %%
small, _, _ = run(by_lbfgs(0.05), evaluations=25)
figure, axes = plt.subplots(figsize=(7, 3.2))
axes.semilogy(curves["L-BFGS"][:26], ".-", label="first step of 10 grey levels")
axes.semilogy(small, ".-", label="first step of 0.05 grey levels")
axes.set_xlabel("evaluation")
axes.set_ylabel("objective")
axes.legend()
plt.show()
higher = int(np.sum(np.diff(curves["L-BFGS"]) > 0))
print(f"evaluations that came out higher than the one before: {higher} of {len(curves['L-BFGS']) - 1}")

# %% [markdown]
# The timid start costs evaluations: nothing visible happens until the search has found the right length.
# Where the second curve jumps up, a step was too long, and the next evaluation is another length on the
# same line. With the larger first step, not one step had to be taken back.
#
# ## Why are networks not trained this way?
#
# L-BFGS compares gradients at two points: $y$ is the change from one to the next. That only means something
# if the objective stays the same. Here it does: one photo, one painting. In training, each step sees *other
# photos*, and the change of the gradient is mostly the change of photos. Adam's running means do not mind.
# So: **one picture, L-BFGS; a network, Adam.**
#
# And why train a network at all? What we did here took 60 evaluations for *one* small picture; the network
# of lesson 0 paints any photo in one pass. The paper finds its networks as good as 50 to 100 iterations of
# L-BFGS, and three orders of magnitude faster.
#
# ## Large, and your own
#
# On the command line, with more pixels and more time (about ten minutes on a processor):
#
# ```sh
# tinynst optimize gatys --content photo.jpg --style painting.jpg --size 256 --out runs/gatys
# ```
#
# Things to try there or here:
#
# - Start from noise in place of the photo (`--start noise`). Which end is lower? Which do you like best?
# - `--optimizer adam`, and lay the two `losses.csv` over each other.
# - `--scales 3`: begin small and double twice. A number at `relu4_3` sees 92 pixels. What is to be larger
#   than that must be laid down while the picture is small.
# - Two paintings: `--style a.jpg b.jpg --mix 1 3`.
#
# ## What you have seen
#
# - A loss with a gradient down to the pixels needs no network: the picture can be the parameter.
# - Descent uses one rate for everything, Adam one for each number. **Newton's step** divides by the
#   curvature in each direction.
# - **L-BFGS** learns the curvature from the last pairs of step $s$ and change $y$, and needs two loops over
#   them in place of a matrix.
#
# **In the paper:** section 4.1 compares its networks with this method, and figure 5 shows both going down.
# **In the library:** `optim.LBFGS` holds the two loops in `_direction` and the line search in
# `next_length`; `tools/optimize.py` is the command. More figures: [optimization.md](optimization.md).
#
# **Next:** the network that does all this in one pass: what it is made of, and what one of its pixels sees.
