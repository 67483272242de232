# %% [markdown]
# # 2. The chain rule
#
# **After this lesson you can** compute the gradient of a chain of operations from its end to its beginning,
# by hand and in code, and read any pair of functions `op` and `op_backward` in this library.
#
# About 40 minutes. You need lesson 1.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import check, ops, show
from tinynst.data import images
from tinynst.samples import PHOTOS

# %% [markdown]
# ## Five numbers
#
# A network is a long chain of simple operations. We start with the shortest chain that shows everything: five
# numbers.
#
# $$u = w \cdot x, \qquad v = u + c, \qquad y = \max(v, 0), \qquad L = (y - t)^2$$
#
# The input is $x = 2$, the parameters are $w = 3$ and $c = -1$, and the result should have been $t = 4$.
# Going from left to right is called the **forward pass**:

# %%
x, w, c, t = 2.0, 3.0, -1.0, 4.0
u = w * x
v = u + c
y = max(v, 0.0)
L = (y - t) ** 2
print(f"u = {u}, v = {v}, y = {y}, L = {L}")

# %% [markdown]
# Now we want the slope of $L$ with respect to $w$. The parameter $w$ is far away from $L$, but each operation
# only meets its neighbour. So we go from right to left and ask at each operation: *if my input grows by a
# little, by how much does my output grow?* That number is the operation's **local derivative**.
#
# - $L = (y - t)^2$: when $y$ grows by $\epsilon$, $L$ grows by $2 (y - t)\, \epsilon$.
# - $y = \max(v, 0)$: when $v$ grows by $\epsilon$, $y$ grows by $\epsilon$ if $v > 0$, and not at all if
#   $v < 0$.
# - $v = u + c$: when $u$ grows by $\epsilon$, $v$ grows by $\epsilon$. The same for $c$.
# - $u = w x$: when $w$ grows by $\epsilon$, $u$ grows by $x\, \epsilon$.
#
# A change passes through all of them, one after the other, so the numbers are *multiplied*. That is the
# **chain rule**.

# %%
dL_dy = 2 * (y - t)
dL_dv = dL_dy * (1.0 if v > 0 else 0.0)
dL_du = dL_dv * 1.0
dL_dc = dL_dv * 1.0
dL_dw = dL_du * x
dL_dx = dL_du * w

# %% tags=["cover"]
figure, axes = plt.subplots(figsize=(11, 2.4))
for place, (name, value, slope) in enumerate(
    [
        ("w", w, dL_dw),
        ("u = w x", u, dL_du),
        ("v = u + c", v, dL_dv),
        ("y = max(v,0)", y, dL_dy),
        ("L", L, 1.0),
    ]
):
    axes.text(
        place, 0, f"{name}\n{value:g}", ha="center", va="center", bbox={"facecolor": "#e8f0ff", "pad": 8}
    )
    axes.text(place, -0.75, f"slope of L: {slope:g}", ha="center", color="#b03020")
    if place:
        axes.annotate("", (place - 0.35, 0.12), (place - 0.65, 0.12), arrowprops={"arrowstyle": "->"})
        axes.annotate(
            "",
            (place - 0.65, -0.12),
            (place - 0.35, -0.12),
            arrowprops={"arrowstyle": "->", "color": "#b03020"},
        )
axes.set_xlim(-0.6, 4.6)
axes.set_ylim(-1.1, 0.7)
axes.axis("off")
axes.set_title("values flow forward (black), slopes flow backward (red)")
plt.show()

# %% [markdown]
# Compare with differences, as always:

# %% tags=["check"]
h = 1e-6


def run(w, c):
    return (max(w * x + c, 0.0) - t) ** 2


print(f"w: chain rule {dL_dw:.4f}, differences {(run(w + h, c) - run(w - h, c)) / (2 * h):.4f}")
print(f"c: chain rule {dL_dc:.4f}, differences {(run(w, c + h) - run(w, c - h)) / (2 * h):.4f}")

# %% [markdown]
# Notice what made this cheap. We walked *once* from the end to the beginning, and every number on the way got
# its slope: $w$, $c$, and even $x$. With differences each would have cost a run of its own. A network with a
# million parameters gets a million slopes for about twice the work of one forward pass. This walk is called
# **backpropagation**, and it is the reason why networks can be trained at all.
#
# ## Forward, backward, cache
#
# Look again at the backward steps. Each needed two things: the slope that arrived from the right, and
# something that the forward pass knew (was $v > 0$? what was $x$?). So each operation becomes a *pair* of
# functions:
#
# ```python
# y, cache = operation(x, ...)             # forward: the result, and what backward will need
# dx, ... = operation_backward(dy, cache)  # backward: from the output's slope to the inputs' slopes
# ```
#
# - `dy` means: **the gradient of the loss with respect to y**. It has the same shape as `y`: one slope for
#   each number. Because it arrives from above, it is often called the **upstream gradient**.
# - `dx` is the same for `x`.
# - `cache` is whatever backward has to remember from forward. Nobody else looks into it.
#
# The whole library has this form, and nothing else in it knows what the loss is.
#
# Here is multiplication for arrays, with a sum over the batch where the parameter is shared:


# %%
def scale(x, w):
    """y = w * x for x (N,) and one number w."""
    return w * x, (x, w)


def scale_backward(dy, cache):
    x, w = cache
    return dy * w, np.sum(dy * x)


# %% [markdown]
# ## Where paths meet, slopes add
#
# Why the sum in `dw`? The one number `w` is used for *every* element of `x`. If `w` grows by $\epsilon$,
# every $y_i$ grows by $x_i \epsilon$, and the loss grows by $\sum_i dy_i\, x_i\, \epsilon$. One number, many
# ways to the loss: **the slopes of all ways are added.**
#
# The rule holds everywhere, and forgetting it is the most common mistake of all:
#
# | the forward pass | the backward pass |
# |---|---|
# | a bias is added to every pixel | its gradient is the *sum* over all pixels |
# | a kernel slides over all places | its gradient is the sum over all places |
# | a value goes two ways (a shortcut around some layers) | the gradients of both ways are added |
# | a value is copied | the gradients of the copies are added |
#
# In code this is the difference between `=` and `+=`:

# %% tags=["check"]
x = np.array([1.0, -2.0, 3.0])
right = np.zeros(3)
wrong = np.zeros(3)
for path in (np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0])):  # x[1] is used twice
    right += path
    wrong = path
print(f"with += {right}, with = {wrong}")

# %% [markdown]
# ## Why `dy` and not the derivative of the output
#
# For arrays, the full local derivative is a table: each output with respect to each input. It is called the
# **Jacobian**. For an image of 256 x 256 x 3 numbers, it has $196{,}608^2$ entries: 155 gigabytes in float32,
# for *one* operation. Nobody ever builds it. Backward multiplies the row `dy` with it without writing it
# down:
#
# $$dx = dy \cdot J$$
#
# This is a **vector-Jacobian product**. For small arrays we can write $J$ down and see that the product is
# the same. We use the operation $y = \max(x, 0)$, which is called **ReLU** (rectified linear unit) and stands
# after nearly every layer of our networks.

# %% tags=["check"]
x = np.array([1.5, -0.5, 2.0, -3.0])
dy = np.array([10.0, 20.0, 30.0, 40.0])
h = 1e-6
J = np.array([[(max(x[i] + h * (i == j), 0) - max(x[i], 0)) / h for j in range(4)] for i in range(4)])
y, cache = ops.relu(x)
(dx,) = ops.relu_backward(dy, cache)
print("Jacobian:")
print(np.round(J, 3))
print(f"dy @ J        = {dy @ J}")
print(f"relu_backward = {dx}")

# %% [markdown]
# The Jacobian is diagonal, since each output depends on one input only, and so the product is one
# multiplication for each number: `dx = dy * (x > 0)`.
#
# What does ReLU do to a picture? Here are the horizontal edges of a photo (each pixel less the pixel below
# it), before and after ReLU. Negative values become 0, so that only edges from bright to dark are left.

# %%
photo = images.load(PHOTOS / "brandenburg_gate.jpg", size=128).mean(axis=2)
edges = photo[:-1] - photo[1:]
show(photo=photo, edges=128 + 2 * edges, after_relu=128 + 2 * ops.relu(edges)[0])

# %% [markdown]
# Two convolutions in a row are still one convolution, and however many multiplications with constants are one
# multiplication. It is the kink of ReLU that lets a chain of layers do more than one layer could.
#
# ## Exercise: ReLU
#
# Write both functions. What should happen where $x$ is exactly 0? There the curve has a corner and no slope.
# The convention is 0.


# %% tags=["exercise", "relu"]
def relu(x):
    """max(x, 0) of an array of any shape. Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def relu_backward(dy, cache):
    """Return (dx,)."""
    raise NotImplementedError("not yet written")


# %%
check("relu", relu, relu_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("relu", relu, relu_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What does backward need to know of forward? For each number only one bit.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The local derivative is 1 where x > 0 and 0 elsewhere. A comparison gives an array of `True` and `False`,
# which can be multiplied.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def relu(x):
#     return np.maximum(x, 0), x > 0
#
#
# def relu_backward(dy, cache):
#     return (dy * cache,)
# ```
#
# </details>
#
# The check compares your gradient with differences, in many directions at once, and where it is wrong it says
# which mistake gives exactly your numbers. Try it: return `dy` itself, or multiply by `x` in place of
# `x > 0`.
#
# When it says *right*, keep your functions: take the `#` away from the last line of that cell and run it
# again. `save` checks once more and writes them to `lessons/exercises/relu.py`. There are fourteen such
# files, and in lesson 13 they train the network.

# %% [markdown]
# ## The scaled tanh
#
# The last layer of the painting network must give colours. It ends in $y = s \tanh(x)$ with $s = 150$, which
# never leaves the range from $-150$ to $150$:

# %%
values = np.linspace(-4, 4, 200)
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(values, 150 * np.tanh(values), label="150 tanh(x)")
axes.plot(values, 150 * (1 - np.tanh(values) ** 2), label="its derivative")
axes.set_xlabel("x")
axes.legend()
plt.show()

# %% [markdown]
# To derive the slope of $\tanh$, write it with exponentials, $\tanh x = \frac{e^x - e^{-x}}{e^x + e^{-x}}$.
# The derivative of a quotient $p / q$ is $(p' q - p q') / q^2$. Here $p' = e^x + e^{-x} = q$ and
# $q' = e^x - e^{-x} = p$, so
#
# $$\tanh' = \frac{q \cdot q - p \cdot p}{q^2} = 1 - \frac{p^2}{q^2} = 1 - \tanh^2 x$$
#
# It is useful that the derivative can be had from the *result*: backward needs to remember $y$, and not $x$.
#
# **Predict before you run:** where is the gradient largest, and what happens to a pixel that is already at
# 149 of 150?

# %% tags=["check"]
y, cache = ops.scaled_tanh(np.array([0.0, 1.0, 3.0]))
(dx,) = ops.scaled_tanh_backward(np.ones(3), cache)
print(f"x = 0, 1, 3 gives y = {np.round(y, 2)} and dy/dx = {np.round(dx, 3)}")

# %% [markdown]
# A pixel near the end of the range hardly learns any more: its gradient has nearly vanished. That is why the
# scale is 150 and not 128: with the mean colour added, 0 and 255 are reached while the curve is still steep.
#
# ## Exercise: scaled tanh


# %% tags=["exercise", "tanh"]
def scaled_tanh(x, scale=150.0):
    """scale * tanh(x) of an array of any shape. Returns (y, cache)."""
    raise NotImplementedError("not yet written")


def scaled_tanh_backward(dy, cache):
    """Return (dx,)."""
    raise NotImplementedError("not yet written")


# %%
check("scaled_tanh", scaled_tanh, scaled_tanh_backward)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("scaled_tanh", scaled_tanh, scaled_tanh_backward)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep $y$ and the scale $s$. Which expression in $y$ is $\tanh x$?
#
# </details>
# <details><summary>Hint 2</summary>
#
# $\tanh x = y / s$, so $dx = dy \cdot s \cdot (1 - (y / s)^2) = dy \cdot (s - y^2 / s)$.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def scaled_tanh(x, scale=150.0):
#     y = scale * np.tanh(x)
#     return y, (y, scale)
#
#
# def scaled_tanh_backward(dy, cache):
#     y, scale = cache
#     return (dy * (scale - y * y / scale),)
# ```
#
# </details>
#
# ## What you have seen
#
# - The **chain rule**: local derivatives are multiplied along a path, and added where paths meet.
# - **Backpropagation** goes once from the loss to the beginning and gives every number its slope.
# - An operation is a pair: forward returns `(y, cache)`, backward turns `dy` into `dx`. Backward is a product
#   of `dy` with the **Jacobian** that is never written down.
#
# **In the paper:** all of training. **In the library:** `ops/activations.py` holds ReLU and the scaled tanh;
# `layers.py` adds parameters to an operation and remembers its cache.
#
# **Next:** how do you know that a gradient is right, when there is nothing to compare it with?
