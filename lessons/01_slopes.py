# %% [markdown]
# # 1. Slopes and descent
#
# **After this lesson you can** make a number smaller by following its slope, and you can say why a step that
# is too long makes everything explode. That is all that "training" means. The other lessons only make the
# thing that is trained larger.
#
# You need Python, some NumPy, and the derivative of $x^2$. About 40 minutes.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import show
from tinynst.data import images
from tinynst.samples import PHOTOS

# %% [markdown]
# ## A photo that came out too dark
#
# Here is a photo, and the same photo as a bad camera saw it: dark, flat and a little noisy.

# %%
photo = images.load(PHOTOS / "chelsea.jpg", size=96)
noise = np.random.default_rng(0).normal(0, 4, photo.shape)
dark = 0.35 * photo + 40 + noise
show(photo=photo, dark=dark)

# %% [markdown]
# We want a rule that turns the dark photo back into the good one. The simplest rule has two numbers: multiply
# every value of a pixel by $a$ (contrast), then add $c$ (brightness).
#
# $$\text{prediction} = a \cdot x + c$$
#
# In this lesson $x$ is the list of all values of the dark photo and $y$ the list of all values of the good
# one. We divide by 255, so that both go from 0 to 1.

# %%
x = dark.ravel() / 255
y = photo.ravel() / 255
print(f"{x.size:,} pairs of numbers, for example x = {x[0]:.3f} should become y = {y[0]:.3f}")

# %% [markdown]
# Numbers that a program finds from examples are called **parameters**. Our rule has two. The network that
# paints photos in this library has 1.7 million, and they are found in the same way.
#
# ## How wrong is it? The loss
#
# To improve a rule, first say in *one number* how bad it is. That number is the **loss**. We take the mean of
# the squared differences:
#
# $$L(a, c) = \frac{1}{n} \sum_{i=1}^n (a x_i + c - y_i)^2$$
#
# The square makes every difference count as positive, and a large difference count more than two small ones.


# %%
def loss(a, c):
    return np.mean((a * x + c - y) ** 2)


print(f"loss of a=1, c=0 (change nothing): {loss(1, 0):.5f}")
print(f"loss of a=2, c=0:                  {loss(2, 0):.5f}")
print(f"loss of a=2, c=-0.3:               {loss(2, -0.3):.5f}")

# %% [markdown]
# Two parameters can be drawn: $a$ to the right, $c$ upwards, and the loss as height. Dark is low. We look for
# the lowest place of this landscape, but we may not look at the whole picture: with 1.7 million parameters
# nobody can draw it. We stand at one point, and all that we can ask is: *which way is down?*

# %%
grid_a, grid_c = np.linspace(0, 4.5, 60), np.linspace(-1.5, 1.0, 50)
landscape = np.array([[loss(a, c) for a in grid_a] for c in grid_c])


def draw_landscape(axes):
    axes.contourf(grid_a, grid_c, np.log(landscape), levels=30, cmap="viridis")
    axes.set_xlabel("a (contrast)")
    axes.set_ylabel("c (brightness)")


figure, axes = plt.subplots(figsize=(6, 4))
draw_landscape(axes)
axes.set_title("log of the loss: a long, narrow valley")
plt.show()

# %% [markdown]
# ## The slope
#
# Keep $c$ at 0 and change only $a$. The loss becomes a curve, and at every point the curve has a **slope**:
# how much the loss grows when $a$ grows by a little, divided by that little.
#
# $$\text{slope} \approx \frac{L(a + h) - L(a)}{h}$$
#
# **Predict before you run:** at $a = 1$ the photo is still far too dark. Is the slope positive or negative?

# %%
h = 0.001
slope = (loss(1 + h, 0) - loss(1, 0)) / h
print(f"slope at a=1: {slope:.4f}")

# %% [markdown]
# Negative: a larger $a$ gives a smaller loss. So we should go to the right. At a positive slope we should go
# to the left. In both cases: **go against the slope.**

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
values = np.linspace(0, 4.5, 100)
axes.plot(values, [loss(a, 0) for a in values], label="loss with c = 0")
for a in (1, 3.5):
    slope = (loss(a + h, 0) - loss(a, 0)) / h
    near = np.array([a - 0.6, a + 0.6])
    axes.plot(near, loss(a, 0) + slope * (near - a), label=f"slope at a = {a}: {slope:.2f}")
axes.set_xlabel("a")
axes.set_ylabel("loss")
axes.legend()
plt.show()

# %% [markdown]
# ## The derivative: the slope without trying
#
# Differences cost a second evaluation of the loss for *every parameter*. For 1.7 million parameters that is
# 1.7 million runs of the network for one step. School calculus does better. As $h$ becomes smaller and
# smaller, the quotient becomes the **derivative**, and for this loss we can write it down.
#
# Start with one example, and call the difference $d = a x + c - y$. The loss of that example is $d^2$.
#
# - If $d$ grows by a little $\epsilon$, $d^2$ becomes $d^2 + 2 d \epsilon + \epsilon^2$. The last term is
#   tiny, so the slope of $d^2$ with respect to $d$ is $2d$.
# - If $a$ grows by $\epsilon$, $d$ grows by $x \epsilon$. So the slope of $d$ with respect to $a$ is $x$.
# - One after the other: the slope of $d^2$ with respect to $a$ is $2d \cdot x$.
# - If $c$ grows by $\epsilon$, $d$ grows by $\epsilon$: the slope with respect to $c$ is $2d \cdot 1$.
#
# The loss is the mean over all examples, and the slope of a mean is the mean of the slopes:
#
# $$\frac{\partial L}{\partial a} = \frac{1}{n}\sum_i 2 d_i x_i, \qquad
#   \frac{\partial L}{\partial c} = \frac{1}{n}\sum_i 2 d_i$$
#
# The sign $\partial$ says "as this one parameter changes and the others stay". One after the other is the
# **chain rule**; the next lesson is about nothing else.


# %%
def gradient(a, c):
    d = a * x + c - y
    return np.mean(2 * d * x), np.mean(2 * d)


# %% [markdown]
# Both slopes together are called the **gradient**. Never believe a formula that you have just derived.
# Compare it with differences:

# %% tags=["check"]
a, c, h = 1.0, 0.2, 1e-6
by_formula = gradient(a, c)
by_differences = (loss(a + h, c) - loss(a - h, c)) / (2 * h), (loss(a, c + h) - loss(a, c - h)) / (2 * h)
print(f"with respect to a: formula {by_formula[0]:.6f}, differences {by_differences[0]:.6f}")
print(f"with respect to c: formula {by_formula[1]:.6f}, differences {by_differences[1]:.6f}")

# %% [markdown]
# (We stepped to *both* sides this time and divided by $2h$. That is more exact; lesson 3 shows by how much.)
#
# ## Descent
#
# Now walk. Stand somewhere, compute the gradient, take a small step against it, and repeat. How far to go for
# a given slope is the **learning rate**, `lr`:
#
# $$a \leftarrow a - \text{lr} \cdot \frac{\partial L}{\partial a}, \qquad
#   c \leftarrow c - \text{lr} \cdot \frac{\partial L}{\partial c}$$


# %%
def descend(a, c, lr, steps):
    path = [(a, c)]
    for _ in range(steps):
        da, dc = gradient(a, c)
        a, c = a - lr * da, c - lr * dc
        path.append((a, c))
    return np.array(path)


path = descend(a=0.5, c=0.8, lr=0.5, steps=300)
a, c = path[-1]
print(f"start: loss {loss(*path[0]):.5f}   end: a = {a:.3f}, c = {c:.3f}, loss {loss(a, c):.5f}")

# %% tags=["cover"]
figure, axes = plt.subplots(figsize=(6, 4))
draw_landscape(axes)
axes.plot(*path.T, ".-", color="white", markersize=3, linewidth=0.8)
axes.plot(*path[0], "o", color="red")
axes.set_title("the path of the ball: across the valley at once, then slowly along it")
plt.show()

# %% [markdown]
# Look at the path. The first steps fall into the valley. Then the floor of the valley is nearly flat, and
# progress is slow although we know the way. This happens in every network, and lesson 10 and the exercise of
# lesson 12 are about ways around it.
#
# Does it repair the photo?

# %%
repaired = 255 * (path[-1][0] * dark / 255 + path[-1][1])
show(dark=dark, repaired=repaired, photo=photo)

# %% [markdown]
# ## The learning rate
#
# **Predict before you run:** what happens with a learning rate of 0.05, of 0.5, of 0.9? And of 1.1?

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for lr in (0.05, 0.5, 0.9, 1.1):
    losses = [loss(*point) for point in descend(0.5, 0.8, lr, 40)]
    axes.semilogy(losses, label=f"lr = {lr}")
axes.set_xlabel("step")
axes.set_ylabel("loss")
axes.set_ylim(1e-3, 1e2)
axes.legend()
plt.show()

# %% [markdown]
# Too small is slow. Larger is faster, up to a point, and a little beyond that point the loss *grows* from
# step to step without end. Why is there such an edge?
#
# Take the simplest valley, $L(p) = \frac{k}{2} p^2$, with its lowest place at 0. The number $k$ is the
# **curvature**: the slope is $k p$, so $k$ says how fast the slope changes. One step of descent gives
#
# $$p \leftarrow p - \text{lr} \cdot k p = (1 - \text{lr} \cdot k)\, p$$
#
# Every step multiplies the distance to the lowest place by the same factor $1 - \text{lr} \cdot k$:
#
# | lr · k | factor | what happens |
# |---|---|---|
# | 0.1 | 0.9 | closer, a tenth at a time |
# | 1 | 0 | there in one step |
# | 1.9 | -0.9 | jumps to the other side, still closer |
# | 2 | -1 | jumps to and fro for ever |
# | 2.2 | -1.2 | farther away each time: it explodes |
#
# So the edge is at $\text{lr} = 2 / k$. Our valley has two curvatures: steep across and flat along. The steep
# one sets the largest learning rate that works; the flat one says how long we wait. Let us compute them. The
# curvatures are the eigenvalues of the matrix of second derivatives, which for our loss is the mean of
# $2 \cdot (x, 1)^T (x, 1)$:
#
# (If you have not met **eigenvalues**: they are the curvatures along the two axes of the valley, found by
# `np.linalg.eigvalsh`. Nothing later needs more than that.)

# %% tags=["check"]
second = 2 * np.array([[np.mean(x * x), np.mean(x)], [np.mean(x), 1.0]])
flat, steep = np.linalg.eigvalsh(second)
print(f"curvature along the valley {flat:.4f}, across {steep:.3f}")
print(f"largest learning rate that works: 2 / {steep:.3f} = {2 / steep:.3f}")
steps = np.log(0.1) / np.log(1 - flat / steep)
print(f"steps until the flat direction has shrunk to a tenth, at half of that rate: {steps:.0f}")

# %% [markdown]
# Try the edge: just below it and just above.

# %%
for lr in (0.98 * 2 / steep, 1.02 * 2 / steep):
    path = descend(0.5, 0.8, lr, 200)
    print(f"lr = {lr:.3f}: loss after 200 steps {loss(*path[-1]):.3g}")

# %% [markdown]
# In a real network nobody knows the curvatures. One tries: when the loss becomes `nan` (not a number:
# something grew beyond what a float can hold), the learning rate was too large. The trainer of this library
# stops then and proposes a smaller one.
#
# ## A better shaped valley
#
# Why is our valley so narrow? Because all $x$ are positive: a larger $a$ and a larger $c$ do nearly the same
# thing, so one can make up for the other. Take the mean off $x$ first, and they no longer do.

# %% tags=["check"]
centred = (x - x.mean()) / x.std()
second = 2 * np.array([[np.mean(centred * centred), np.mean(centred)], [np.mean(centred), 1.0]])
print(f"curvatures after centring and scaling: {np.round(np.linalg.eigvalsh(second), 4)}")

# %% [markdown]
# Both are 2 now: a round bowl. With `lr = 0.5` *one* step leads to its lowest place. This is why images have
# their mean colour taken off before they enter a network, and why networks contain layers that bring every
# channel to mean 0 and variance 1 again and again. They are called norms; you will derive one in lesson 7.
#
# ## Exercise: fit the line yourself
#
# Write `fit_line`. It gets two arrays and finds `a` and `c` by descent, from `a = 0`, `c = 0`. Do not look at
# the functions above while you write: derive the two slopes again on paper.


# %%
def fit_line(x, y, lr, steps):
    """Return (a, c) such that a * x + c is close to y, after `steps` steps of descent from (0, 0)."""
    raise NotImplementedError("not yet written")


# %%
def check_line(fit):
    rng = np.random.default_rng(1)
    x = rng.normal(size=500)
    y = 3 * x - 2 + rng.normal(0, 0.1, 500)
    try:
        a, c = fit(x, y, lr=0.1, steps=200)
    except NotImplementedError:
        return "not written yet: fill in fit_line in the cell above and run both cells again"
    if np.allclose((a, c), (3, -2), atol=0.05):
        return f"right: a = {a:.2f}, c = {c:.2f}"
    if np.allclose((a, c), (0, 0), atol=0.05):
        return "nothing moved: are the new a and c used in the next step?"
    return f"not yet: a = {a:.3g}, c = {c:.3g}, expected 3 and -2. Check the sign of the step, and the mean"


print(check_line(fit_line))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# One step needs three lines: the differences `d`, the two slopes, the two updates.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With `d = a * x + c - y` the slopes are `np.mean(2 * d * x)` and `np.mean(2 * d)`. Compute *both* before you
# change `a` or `c`: otherwise the second slope belongs to another point than the first.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def fit_line(x, y, lr, steps):
#     a = c = 0.0
#     for _ in range(steps):
#         d = a * x + c - y
#         a, c = a - lr * np.mean(2 * d * x), c - lr * np.mean(2 * d)
#     return a, c
# ```
#
# </details>
#
# ## What you have seen
#
# - A **loss** says in one number how wrong a rule is. **Parameters** are the numbers of the rule.
# - The **gradient** holds a slope for each parameter. Descent takes a step against it, and the **learning
#   rate** says how long.
# - A learning rate above 2 / curvature explodes; a narrow valley is slow; centred inputs make the valley
#   rounder.
# - Formulas for gradients are compared with differences before they are believed.
#
# **In the paper:** equation 5 is the loss that the painting network follows downhill, with Adam (lesson 12),
# a descent that chooses a step length for each parameter. **In the library:** `optim.Adam.step` takes the
# step, `training/loop.py` repeats it, `losses.pixel_loss` is the loss of this lesson.
#
# **Next:** the gradient of a *chain* of operations, and what flows backwards through a network.
