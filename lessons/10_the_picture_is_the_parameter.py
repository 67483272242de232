# %% [markdown]
# # 10. The picture is the parameter
#
# **After this lesson you can** turn a photo into a painting without any painting network, by changing its
# pixels; you can say what plain descent, Adam and L-BFGS each do with the same gradient; and you can derive
# and write the two loops of L-BFGS.
#
# About 60 minutes, of which one and a half are computing. You need lessons 1, 8 and 9.
#
# In 2015, Gatys, Ecker and Bethge had this idea: take the two losses, and let the *picture itself* be what is
# learnt. Here it is at work. The photo turns into the painting, frame by frame.

# %% tags=["cover"]
import time

import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, load_style, show
from tinynst.data import images, styles
from tinynst.losses import StyleObjective
from tinynst.optim import LBFGS, Adam, next_length
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools.optimize import descend, noise

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
            frames[f"after {k}"] = best
        step(dy, values[-1])  # changes y in place
    return values, best, frames


def by_lbfgs(first_step):
    def make_step(y):
        optimizer = LBFGS(y, first_step=first_step)
        return lambda dy, value: optimizer.step(dy, value)

    return make_step


curves, results = {}, {}
curves["L-BFGS"], results["L-BFGS"], frames = run(by_lbfgs(10.0), watch=(0, 4, 6, 8, 10, 15, 30, 60))
show(**frames)

# %% [markdown]
# Sixty times VGG was asked: *how good is this picture, and in which direction should each pixel go?* Nothing
# else happened. Read `run` again: there is no network that paints. `y` is the parameter, all 19,200 numbers
# of it.
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
# (Content is 0, because we start from the photo. float32 and a sum of millions of terms allow no more than a
# rough comparison; lesson 8 made the exact one.)
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
# **Adam** (lesson 12 derives it) divides each number's gradient by the usual size of that number's gradient.
# So each pixel moves by about `lr` in each step, whatever the gradient. For a picture this makes the rate
# easy to choose: it is in *grey levels*.
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
axes.set_ylim(1e5, 2e7)
axes.set_xlabel("evaluations of objective and gradient")
axes.set_ylabel("objective")
axes.legend(loc="upper right", ncols=2)
plt.show()

# %%
show(photo=photo, **results)

# %% [markdown]
# With a rate of 0.001, sixty steps of Adam would move no pixel by more than 0.06 grey levels.
#
# The curves are the result of this lesson. Adam is ahead for some steps, with a rate that we chose from 2, 5,
# 10 and 20. L-BFGS ends lowest, and *nobody chose a learning rate for it*, only the length of its very first
# step. How does it know how far to go?
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
# Twelve evaluations each. Plain descent jumps from wall to wall, at first even out of the picture. Adam moves
# both numbers by the same length, so it walks straight through the floor of the valley and up the other side,
# and has to come back. L-BFGS needs a few steps to find out what the valley is like, and then goes along it
# to the cross.
#
# ## Newton's step
#
# Suppose we knew $A$. Where is the bottom? After a step $s$ the gradient is $A(p + s) = g + A s$. At the
# bottom it is zero, so
#
# $$s = -A^{-1} g$$
#
# That is **Newton's step**. It divides by the curvature, in each direction by its own: long steps where it is
# flat, short ones where it is steep. In our valley it arrives at once.

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
# But we get information for nothing. Take any step $s$. The gradient changes from $g$ to $g + A s$. Call the
# change $y$:
#
# $$y = A s$$
#
# So every step that we have taken shows what $A$ does in *one* direction. An estimate $H$ of $A^{-1}$ should
# agree: it should turn $y$ back into $s$,
#
# $$H y = s$$
#
# In one dimension this is easy to see. There $H$ is a single number, $s / y$: one over the slope of the
# straight line through two gradients. The step $-Hg$ goes to where that line crosses zero:


# %%
def gradient_1d(p):
    return 0.15 * p**3 + p - 2


p = np.array([0.0, 0.6])
for _ in range(2):
    s, y = p[-1] - p[-2], gradient_1d(p[-1]) - gradient_1d(p[-2])
    p = np.append(p, p[-1] - s / y * gradient_1d(p[-1]))
line = np.linspace(-0.1, 2.1, 50)
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot(line, gradient_1d(line), label="gradient")
axes.axhline(0, color="gray", linewidth=0.7)
for k in (0, 1):
    s, y = p[k + 1] - p[k], gradient_1d(p[k + 1]) - gradient_1d(p[k])
    axes.plot(line, gradient_1d(p[k]) + y / s * (line - p[k]), "--", linewidth=1, label=f"line {k + 1}")
    axes.plot(p[k + 2], 0, "x", color=f"C{k + 1}", markersize=9, markeredgewidth=2)
axes.plot(p[:3], gradient_1d(p[:3]), "o", color="#b03020")
axes.set(xlabel="p", ylabel="gradient", ylim=(-2.3, 1.6))
axes.legend()
plt.show()

# %% [markdown]
# This is the **secant method**. The first line (from the first two points) leads to its cross; the gradient
# there gives the second line, and its cross is much nearer. Two gradients do what a second derivative would
# do.
#
# With many dimensions, one pair says something about one direction only, and there are many matrices $H$ with
# $Hy = s$. Which one to take?
#
# **BFGS** (Broyden, Fletcher, Goldfarb, Shanno, 1970) takes an estimate $H$ and repairs it, so that it agrees
# with a new pair. With $\rho = 1 / (s \cdot y)$:
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
# Why *this* repair, and not the simplest one, $H + $ something that fixes $H y = s$? Two properties matter,
# and both can be read off the formula. $H_{new}$ is **symmetric** if $H$ is, as an inverse of second
# derivatives must be. And it is **positive**: for any vector $g$, with $q = (I - \rho\, y s^T) g$,
#
# $$g^T H_{new}\, g = q^T H q + \rho\,(s \cdot g)^2$$
#
# Both terms are at least zero, as long as $\rho > 0$, that is $s \cdot y > 0$. So the step $-Hg$ always leads
# *downhill*: its slope is $-g^T H g$. A pair with $s \cdot y \le 0$ (the slope has become steeper on the way
# down, as over the top of a hill) is left out.

# %% tags=["check"]
n = 5
root = rng.normal(size=(n, n))
B = root @ root.T + 0.1 * np.eye(n)
H = np.eye(n)
for _ in range(8):
    s = rng.normal(size=n)
    H = repaired(H, s, B @ s)
print(f"symmetric: {np.allclose(H, H.T)}, smallest eigenvalue positive: {np.linalg.eigvalsh(H).min() > 0}")

# %% [markdown]
# ## L-BFGS: two loops in place of a matrix
#
# $H$ is still too large. But we never need $H$. We need $H g$, one vector. So keep only the last twenty pairs
# $(s, y)$ (the **L** is for *limited memory*) and work the product out, factor by factor, from the right. For
# one pair:
#
# $$H_{new}\, g = (I - \rho\, s y^T)\; H\, \underbrace{(I - \rho\, y s^T)\, g}_{q} + \rho\, s\, (s \cdot g)$$
#
# 1. Let $\alpha = \rho\,(s \cdot g)$. Then $q = g - \alpha\, y$.
# 2. Apply the older estimate: $r = H q$.
# 3. $H_{new}\, g = r - \rho\, (y \cdot r)\, s + \alpha\, s = r + (\alpha - \rho\,(y \cdot r))\, s$.
#
# No matrix is left in steps 1 and 3: a dot product, a number, a vector. Check one pair, with an $H$ that we
# do write down:

# %% tags=["check"]
s, g = rng.normal(size=n), rng.normal(size=n)
y = B @ s
rho = 1 / (s @ y)
alpha = rho * (s @ g)
q = g - alpha * y
r = H @ q
by_steps = r + (alpha - rho * (y @ r)) * s
print(f"three steps: {np.round(by_steps[:3], 4)} ...")
print(f"the matrix:  {np.round((repaired(H, s, y) @ g)[:3], 4)} ...")

# %% [markdown]
# Step 2 is the same job with one pair less. So open it, and open what is inside it:
#
# ```
# H3 g:  step 1 with pair 3, the newest
#            H2 q:  step 1 with pair 2
#                       H1 q:  step 1 with pair 1, the oldest
#                                  H0 q:  a first guess, one number times q
#                              step 3 with pair 1
#                   step 3 with pair 2
#        step 3 with pair 3
# ```
#
# Steps 1 happen on the way in, from the newest pair to the oldest: the **first loop**. Steps 3 happen on the
# way out, from the oldest to the newest: the **second loop**. Between them stands the first guess $H_0$.
#
# *How large is the first guess?* It says how long steps are on the whole. If the curvature were the same
# number $k$ in all directions, then $y = k s$, and $H$ should be $1/k$. The newest pair knows it:
#
# $$\frac{s \cdot y}{y \cdot y} = \frac{s \cdot ks}{ks \cdot ks} = \frac1k$$
#
# What does all this cost? Four passes over the vector for each pair:

# %% tags=["check"]
numbers, memory = 256 * 256 * 3, 20
print(f"Newton: a matrix of {numbers**2:.0e} numbers, {numbers**3:.0e} multiplications to invert it")
print(f"L-BFGS: {2 * memory * numbers:.0e} numbers, {4 * memory * numbers:.0e} multiplications")

# %% [markdown]
# ## Exercise: the two loops
#
# Write them. `pairs` is a list of `(s, y)`, the newest last. The result is $H g$ (the step will be its
# negative). With no pairs, return `g`.


# %% tags=["exercise"]
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
# Start with `q = g.copy()`, and keep the alphas of the first loop in a list: the second loop uses them in the
# opposite order.
#
# </details>
# <details><summary>Hint 2</summary>
#
# First loop, over `reversed(pairs)`: `alpha = (s @ q) / (s @ y)`, then `q = q - alpha * y`. Second loop, over
# `pairs`: `q = q + (alpha - (y @ q) / (s @ y)) * s`.
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
# ## The two loops in pictures
#
# For a picture, $g$, $s$, $y$ and everything between them have the shape of the picture. So we can look at
# them. We take eight evaluations of L-BFGS, stop, and follow the next step through both loops.

# %%
y_picture = photo[None].copy()
optimizer = LBFGS(y_picture, first_step=10.0)
for _ in range(9):
    terms, dy = objective(y_picture, targets)
    optimizer.step(dy, terms["total"])
pairs = [(s, y) for s, y, _ in optimizer.pairs]
print(f"{len(pairs)} pairs of vectors of {pairs[0][0].size:,} numbers")


def seen(vector, strength=60):
    """A vector as a picture around grey, as strong as the eye likes it."""
    return 128 + strength * vector.reshape(photo.shape) / vector.std()


(s_old, y_old), (s_new, y_new) = pairs[0], pairs[-1]
show(
    **{
        "oldest step s": seen(s_old),
        "its change of gradient y": seen(y_old),
        "newest step s": seen(s_new),
        "its change y": seen(y_new),
    }
)

# %% [markdown]
# Look at the newest pair. The step is broad and blue, with some detail at the eyes. The change of the
# gradient along it is mostly *fine stripes*. That is curvature, to be seen: a change of fine detail is a
# steep direction, where the gradient changes much; a change of broad colour is a flat one.
#
# Now the next step, through both loops:

# %%
# First loop: take out of the gradient what the pairs explain, from the newest to the oldest.
q, alphas = optimizer.g.astype(np.float64), []
stages = {"the gradient g": q}
for s, y in reversed(pairs):
    alphas.append((s @ q) / (s @ y))
    q = q - alphas[-1] * y
stages["q, after loop 1"] = q

# The first guess, then the second loop: put the steps in, from the oldest to the newest.
s, y = pairs[-1]
r = q * (s @ y) / (y @ y)
for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
    r = r + (alpha - (y @ r) / (s @ y)) * s
stages["the step -Hg"] = -r
stages["-g, for comparison"] = -stages["the gradient g"]
show(**{name: seen(vector) for name, vector in stages.items()})

# %% [markdown]
# To the eye, the first loop changes little: it takes something out of the gradient along each $y$. The second
# loop puts in steps, and the result is another picture. Compare the last two. Plain descent, $-g$, wants
# different things at every spot. L-BFGS wants one broad change above all: everything bluer. Steep directions
# have become short, flat ones long.
#
# In numbers: **roughness** is how much neighbours differ, compared with any two pixels. It is near 0 for a
# smooth slope, and 1 for noise.


# %%
def roughness(vector):
    picture = vector.reshape(photo.shape)
    return np.mean(np.diff(picture, axis=1) ** 2) / (2 * picture.var())


for name, vector in {"newest s": s_new, "newest y": y_new, "-g": stages["the gradient g"], "-Hg": r}.items():
    print(f"roughness of {name:9} {roughness(vector):.2f}")
cosine = r @ stages["the gradient g"] / np.linalg.norm(r) / np.linalg.norm(stages["the gradient g"])
print(f"angle between -g and -Hg: {np.degrees(np.arccos(cosine)):.0f} degrees")

# %% [markdown]
# The change $y$ is nearly three times as rough as its step $s$, and $-Hg$ only half as rough as $-g$.
#
# Is this the step that the library takes? It keeps the direction of its next step in `d`. And is the slope in
# that direction what it should be? Differences say:

# %% tags=["check"]
same = np.allclose(-r, optimizer.d, atol=1e-3 * abs(r).max())
print(f"the same direction as the library's: {same}")
base = optimizer.x.reshape(photo.shape)[None]
direction = (optimizer.d / abs(optimizer.d).max()).reshape(photo.shape)[None]
up, down = (objective.value((base + h * direction).astype(np.float32), targets) for h in (0.5, -0.5))
slope = optimizer.g @ direction.ravel()
close = np.isclose(slope, up - down, rtol=0.05)
print(f"downhill: {slope < 0}; slope by gradient and by differences agree: {close}")

# %% [markdown]
# ## How many pairs?
#
# More pairs know more, and cost more memory and time. Here is a valley in 60 dimensions, with curvatures from
# 1 to 1,000, as seen by plain descent (with the best constant rate) and by L-BFGS with 1, 5 and 20 pairs.
#
# **Predict before you run:** by what factor will one single pair beat plain descent?

# %%
curvatures = np.geomspace(1, 1000, 60)
begin_at = np.random.default_rng(1).normal(size=60)


def fall(make_step, evaluations=150):
    """The value 0.5 * sum of curvature * p^2 at each evaluation, the lowest so far."""
    p = begin_at.copy()
    step, values = make_step(p), []
    for _ in range(evaluations):
        value = 0.5 * np.sum(curvatures * p * p)
        values.append(min(value, values[-1]) if values else value)
        step(curvatures * p, value)
    return values


def descent_60(p):
    def step(g, value):
        p[...] -= 2 / (curvatures[0] + curvatures[-1]) * g

    return step


def lbfgs_60(memory):
    def make_step(p):
        optimizer = LBFGS(p, memory=memory, first_step=0.1)
        return lambda g, value: optimizer.step(g, value)

    return make_step


figure, axes = plt.subplots(figsize=(7, 3.5))
axes.semilogy(fall(descent_60), label="descent")
for memory in (1, 5, 20):
    axes.semilogy(fall(lbfgs_60(memory)), label=f"L-BFGS, {memory} pair{'s' * (memory > 1)}")
axes.set(xlabel="evaluation", ylabel="lowest value so far")
axes.legend()
plt.show()

# %% [markdown]
# After 150 evaluations one single pair is ahead of descent by a factor of a million, and twenty pairs by some
# two hundred more. The first pair does most: it brings the right length to each step, and remembers the last
# direction. (More are rarely worth it: old pairs come from a place far away, where the valley had another
# shape.)
#
# ## How long is the first step?
#
# The first step has no pairs. Many programs begin with a step of total length 1. Spread over 19,200 numbers,
# that moves no pixel visibly, and some evaluations are spent on finding it out. The library lets the pixel
# that moves most move by `first_step` grey levels: 10.
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
# Where the second curve jumps up, a step was too long, and the next evaluation is another length on the same
# line.
#
# ## The line search
#
# The direction is chosen; how far to go? A length of 1 is nearly right once there are pairs. But the valley
# is no parabola, and two things can go wrong:
#
# - **The step is too long**: the value has not fallen, or hardly. It must be taken back.
# - **The step is too short**: it is still steep there. Such a step teaches little, because $y$ is small.
#
# The **strong Wolfe conditions** name both. Let $\phi(t)$ be the value after a step of length $t$ along the
# line, and $\phi'(t)$ its slope. A length is accepted if
#
# $$\phi(t) \le \phi(0) + c_1\, t\, \phi'(0) \qquad\text{and}\qquad |\phi'(t)| \le c_2\, |\phi'(0)|$$
#
# with $c_1 = 0.0001$ (it must have fallen, at least a little) and $c_2 = 0.9$ (the slope must be at least a
# little flatter). Both are loose on purpose. Each length costs an evaluation of VGG, and a good next line is
# worth more than a perfect end of this one.
#
# The second condition has one more use: if the slope has become flatter, then $s \cdot y > 0$, and the pair
# is one that $H$ can use.
#
# Which length comes next? `next_length` takes what was looked at so far, a list of (length, value, slope). It
# lays a cubic curve through two points with their slopes and goes to its lowest place, never too near to
# either end. Watch it on a curve that rises much faster than it falls:


# %%
def phi(t):
    return 0.1 * (np.exp(4 * t) - 1) - 1.4 * t + 1


def phi_slope(t):
    return 0.4 * np.exp(4 * t) - 1.4


tried = [(0.0, phi(0.0), phi_slope(0.0))]
while (length := next_length(tried)) is not None:
    tried.append((length, phi(length), phi_slope(length)))

t = np.linspace(0, 1.02, 200)
good = (phi(t) <= 1 - 1e-4 * t) & (abs(phi_slope(t)) <= 0.9)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for axes, (right, top) in zip(panels, ((1.04, 5.4), (0.55, 1.1)), strict=True):
    axes.plot(t, phi(t))
    axes.fill_between(t, 0, 8, where=good, alpha=0.2, color="green", label="both conditions hold")
    for k, (length, value, _) in enumerate(tried):
        axes.plot(length, value, "o", color="#b03020")
        if length < right and value < top:
            axes.annotate(f"{k}", (length, value), (-10, 6), textcoords="offset points")
    axes.set(xlabel="length t along the line", xlim=(-0.03, right), ylim=(0.75 if top < 2 else 0, top))
panels[0].set_ylabel("value")
panels[0].set_title("the whole line")
panels[1].set_title("its beginning")
panels[0].legend(loc="upper left")
plt.show()

# %% tags=["check"]
for k, (length, value, slope) in enumerate(tried):
    fallen, flatter = value <= 1 - 1e-4 * length, abs(slope) <= 0.9
    print(f"{k}: length {length:.3f}, value {value:.3f}, slope {slope:7.3f},", end=" ")
    print(f"fallen: {fallen}, flatter: {flatter}")

# %% [markdown]
# (Point 0 is the start.) Length 1 is far too long, and each cubic brings the next try nearer. In the run
# above, with a first step of 10 grey levels, no length at all had to be taken back: one evaluation for each
# step.
#
# `next_length` has no memory of its own. It is a function of what was looked at so far. That is why a run can
# be stopped in the middle of a line, saved, and resumed bit for bit.
#
# ## Against a network
#
# Now the comparison of the paper's figure 5: one objective, two ways to make it small. A *network*, trained
# beforehand, paints in one pass. *L-BFGS* works on the pixels of this one picture, from noise or from the
# photo. We take the network that ships for this, with the objective that it was trained for.

# %%
goal = styles.shipped()["starry_night_single"]["objective"]
starry = images.load(STYLES / "starry_night.jpg", size=goal["style_size"], side="long")
judge = styles.style_objective(vgg, starry[None], goal)
larger = images.load(PHOTOS / "neuschwanstein.jpg", size=160)[:, 40:200]
seen_in_photo = judge.targets(larger[None])

net = load_style("starry_night_single")
passes = []
for _ in range(4):  # the first one prepares
    begin = time.process_time()  # other programs do not count
    painted = net.forward(larger[None])
    passes.append(time.process_time() - begin)
one_pass = min(passes)
reached = judge.value(painted, seen_in_photo) / 1000

starts = {"from noise": noise(*larger.shape[:2]), "from the photo": larger}
fallen, on_the_way = {}, {}
begin = time.process_time()
for name, start in starts.items():
    fallen[name] = []
    for k, (_, optimizer) in enumerate(descend(judge, seen_in_photo, start, 40), start=1):
        fallen[name].append(optimizer.value / 1000)
        if k in (5, 10, 20, 40):
            on_the_way[f"{name}, {k}"] = optimizer.best()[0]
one_evaluation = (time.process_time() - begin) / 80

# %%
figure, axes = plt.subplots(figsize=(7, 3.6))
for name, values in fallen.items():
    axes.semilogy(range(1, len(values) + 1), values, label=f"L-BFGS {name}")
axes.axhline(reached, color="black", linestyle="--", label="the network, one pass")
axes.set(xlabel="evaluations of L-BFGS", ylabel="objective (thousands)")
axes.set_yticks([100, 200, 500, 1000, 2000, 5000], ["100", "200", "500", "1,000", "2,000", "5,000"])
axes.set_yticks([], minor=True)
axes.legend()
plt.show()

# %%
show(photo=larger, the_network=painted[0], **on_the_way, columns=5)

# %% [markdown]
# Here the network is as good as a dozen evaluations from noise, and as seven from the photo. Look at the
# pictures: from noise, strokes come first and the castle later, because at the start the style is nearly all
# of the loss. From the photo the castle is there already, and only the style is to be found. (The bright spot
# in the network's sky is a habit of its own. Lesson 14 finds the cause.)
#
# Measured with care, on 12 held-out Kodak photos at 256 x 256 (objectives in thousands, means over the
# photos; medians in the last row):
#
# | | objective |
# |---|---:|
# | the photo itself | 4,587 |
# | the network, one pass | 327 |
# | L-BFGS from noise, after 10 / 20 / 40 evaluations | 542 / 297 / 147 |
# | L-BFGS from the photo, after 10 / 20 / 40 evaluations | 288 / 139 / 106 |
# | the network is equal to | 18.5 evaluations from noise, 10 from the photo |
#
# Every photo is in [report.md](optimization/report.md), every number in
# [curves.csv](optimization/curves.csv). Here are the curves, and pictures on the way at 128 x 128 (smaller
# than what the network was last trained on, which costs it something):
#
# ![The objective against evaluations](optimization/curves.png)
#
# ![The network's picture next to those of L-BFGS on the way](optimization/figure5.jpg)

# %% [markdown]
# The paper finds its networks, trained for 40,000 steps of four photos, as good as 50 to 100 iterations of
# L-BFGS. The one that ships had 2,350 steps of one photo on two cores, and the L-BFGS next to it is a quick
# one. How far L-BFGS has come after so many evaluations depends much on how it starts. So say how, and count
# *evaluations*, not iterations: an iteration with a line search may hide ten of them.
#
# What the network buys is **time**. Here, on one core:

# %%
print(f"one pass of the network:        {1000 * one_pass:6.0f} ms")
print(f"one evaluation of L-BFGS:       {1000 * one_evaluation:6.0f} ms")
for evaluations in (100, 300, 500):
    seconds = evaluations * one_evaluation
    print(
        f"{evaluations} evaluations of L-BFGS:     {seconds:6.0f} s, {seconds / one_pass:,.0f} times one pass"
    )

# %% [markdown]
# An evaluation costs about twice a pass: VGG forward and backward, against the network forward. But a picture
# takes *hundreds* of evaluations. At 256 x 256 it was measured twice, in seconds:
#
# | | one run | another, on a busy machine |
# |---|---:|---:|
# | one pass of the network | 0.20 | 1.24 |
# | 1 evaluation of L-BFGS | 0.36 | 2.89 |
# | 100 evaluations | 36 | 289 |
# | 300 evaluations | 109 | 868 |
# | 500 evaluations | 182 | 1,447 |
# | 500 evaluations, divided by one pass | 894 | 1,167 |
#
# (Medians. The ratio swings with what else the machine does. The evaluations of a column are multiples of one
# measured time.) That is the paper's "three orders of magnitude".
#
# ## The paper's figures 3 and 4
#
# The same program without one of the two losses gives two more figures of the paper. You made small ones in
# lessons 8 and 9. Here they are at 128 x 128 with 150 evaluations for each picture.
#
# **Figure 3: what a layer knows.** From grey noise, the picture that a layer cannot tell from the photo:
#
# ![Feature inversion](optimization/figure3.jpg)
#
# `relu2_2` gives it back nearly pixel for pixel. From `relu4_3` on the colours are wrong, and the fur is the
# layer's own. Of `relu5_3` the layout is left, two eyes and a nose where they were, and no texture. This is
# why the content loss sits at `relu3_3`: low enough to keep things in their places, high enough not to insist
# on their surface.

# %% [markdown]
# **Figure 4: what a style is.** The same with the Gram matrices of The Starry Night in place of features,
# which say what fires together, and not where:
#
# ![Style reconstruction](optimization/figure4.jpg)
#
# `relu1_2` knows colours and grain, each deeper layer larger strokes. No layer knows where the moon was.
#
# `tinynst figures --out figures` makes all three sheets again, from pictures that ship.
#
# ## Two paintings at once
#
# A picture in the style of *two* paintings: should one add two style losses, or average two Gram matrices?
# With shares $m_k$ that sum to 1, derive the gradient of the sum with respect to $G$:
#
# $$\frac{\partial}{\partial G} \sum_k m_k \| G - G_k \|^2 = \sum_k 2 m_k (G - G_k)
#   = 2 \Big( G - \underbrace{\sum_k m_k G_k}_{\bar G} \Big)$$
#
# That is the gradient of $\| G - \bar G \|^2$. Two functions with the same gradient everywhere differ by a
# constant. So both ways paint the same picture, and the average costs only one comparison.

# %% tags=["check"]
G, G1, G2 = np.random.default_rng(5).normal(size=(3, 4, 4))
for step in (0.0, 0.1, 0.2):
    at = G + step
    added = 0.25 * np.sum((at - G1) ** 2) + 0.75 * np.sum((at - G2) ** 2)
    averaged = np.sum((at - (0.25 * G1 + 0.75 * G2)) ** 2)
    print(f"added {added:.4f}, averaged {averaged:.4f}, difference {added - averaged:.4f}")

# %% [markdown]
# On the command line: `--style a.jpg b.jpg --mix 1 3`.
#
# ## Why are networks not trained this way?
#
# L-BFGS compares gradients at two points: $y$ is the change from one to the next. That only means something
# if the objective stays the same. Here it does: one photo, one painting. In training, each step sees *other
# photos*. How much of $y$ would then be curvature, and how much only another photo?

# %% tags=["check"]
other = images.load(PHOTOS / "coffee.jpg", size=80)[:, :80]
at_start = objective(photo[None], targets)[1]
by_the_step = np.linalg.norm(y_old)  # from the same photo, along the first step
by_the_photo = np.linalg.norm(objective(other[None], objective.targets(other[None]))[1] - at_start)
ratio = by_the_photo / by_the_step
print(f"another photo changes the gradient {ratio:.1f} times as much as the first step does")

# %% [markdown]
# The change of the gradient would be mostly the change of photos. L-BFGS would read it as curvature and take
# wrong steps. Adam's running means do not mind. So: **one picture, L-BFGS; a network, Adam.**
#
# ## Large, and your own
#
# **This cell says how to do it large.** On the command line, with more pixels and more time (about ten
# minutes on a processor):
#
# ```sh
# tinynst optimize gatys --content photo.jpg --style painting.jpg --size 256 --out runs/gatys
# tinynst optimize invert --image photo.jpg --layer relu3_3 --out runs/invert
# tinynst optimize texture --style painting.jpg --out runs/texture
# tinynst evaluate style --weights starry_night_single --images photos/ --out report
# ```
#
# Things to try there or here:
#
# - `--start noise`, `--start content`, or a drawing of your own: which end is the lowest, and which do you
#   like best?
# - `--optimizer adam`, and lay the two `losses.csv` over each other.
# - `--scales 3 --size 512`: begin at 128 pixels and double twice. A number at `relu4_3` sees 92 pixels. What
#   is to be larger than that must be laid down while the picture is small.
# - Give your `two_loops` to the cat: in `run`, take steps of length 1 along `-two_loops(g, pairs)`, and keep
#   the pairs yourself. What goes wrong without a line search?
#
# ## What you have seen
#
# - A loss with a gradient down to the pixels needs no network: the picture can be the parameter.
# - Descent uses one rate for everything, Adam one for each number. **Newton's step** divides by the curvature
#   in each direction.
# - **L-BFGS** learns the curvature from the last pairs of step $s$ and change $y$, and needs two loops over
#   them in place of a matrix. A **line search** finds the length, and mostly the first try will do.
# - A trained network is as good as some evaluations, and a thousand times faster than hundreds of them.
#
# **In the paper:** section 4.1 compares its networks with this method; figures 3, 4 and 5 are on this page.
# **In the library:** `optim.LBFGS` holds the two loops in `_direction` and the line search in `next_length`
# (Nocedal and Wright, algorithms 7.4, 3.5 and 3.6); in `tools/optimize.py` the function `descend` is the
# whole idea; `tools/figures.py` makes the figures.
#
# **Next:** the network that does all this in one pass: what it is made of, and what one of its pixels sees.
