# %% [markdown]
# # 3. Is my gradient right?
#
# **After this lesson you can** check any gradient with a few lines of NumPy, choose the step, and say why a
# check that passes may still prove nothing.
#
# A wrong gradient does not crash. The loss falls more slowly, or stops too early, and nobody knows why. So
# every gradient in this library has been checked in the way that you build here. About 45 minutes. You need
# lessons 1 and 2.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import gradcheck, ops

# %% [markdown]
# ## Differences
#
# The derivative says how much $f(x)$ grows for a small step. So take a small step and look:
#
# $$f'(x) \approx \frac{f(x + h) - f(x)}{h}$$
#
# **Predict before you run:** how small should $h$ be? As small as possible?

# %% tags=["cover"]
f, derivative = np.sin, np.cos
x = 1.0
steps = 10.0 ** np.arange(-15, 1)
one_sided = [abs((f(x + h) - f(x)) / h - derivative(x)) for h in steps]
two_sided = [abs((f(x + h) - f(x - h)) / (2 * h) - derivative(x)) for h in steps]

figure, axes = plt.subplots(figsize=(7, 4))
axes.loglog(steps, one_sided, "o-", label="one-sided: f(x + h) - f(x)")
axes.loglog(steps, two_sided, "o-", label="two-sided: f(x + h) - f(x - h)")
axes.set_xlabel("step h")
axes.set_ylabel("error of the derivative of sin at 1")
axes.legend()
plt.show()

# %% [markdown]
# Both curves are a V. From the right, the error falls as the step becomes smaller. But from some point on it
# *grows* again. Two different errors are at work.
#
# **The step is too large.** The curve bends, and the difference sees the bend. Write $f(x + h)$ as a series
# (Taylor):
#
# $$f(x + h) = f(x) + h f'(x) + \tfrac{h^2}{2} f''(x) + \tfrac{h^3}{6} f'''(x) + \dots$$
#
# Take $f(x)$ away and divide by $h$: the error is about $\frac{h}{2} f''(x)$, and proportional to $h$. For
# the two-sided difference, write the same with $-h$ and subtract. All even terms cancel, and the error is
# $\frac{h^2}{6} f'''(x)$, proportional to $h^2$. That is why its line is steeper.
#
# **The step is too small.** A float64 holds about 16 digits, so $f(x)$ itself is off by about $10^{-16}$.
# The difference of two such numbers is off by as much, and it is divided by $h$. The error is about
# $10^{-16} / h$: it grows as $h$ shrinks.
#
# The best step is where both are equal: $h^2 \approx 10^{-16} / h$, so $h \approx 10^{-5.3}$. The picture
# agrees. With one-sided differences it would be $10^{-8}$, and the result a thousand times less exact.

# %% tags=["check"]
best = steps[int(np.argmin(two_sided))]
print(f"two-sided: best step {best:.0e}, error {min(two_sided):.0e}")
print(f"one-sided: error at its best step {min(one_sided):.0e}")

# %% [markdown]
# In float32 a number has only 7 digits, and the best that differences can do is about 4 correct digits.
# **Check gradients in float64**, even if you train in float32.
#
# ## A check for arrays
#
# An operation turns an array `x` into an array `y`, and its backward turns `dy` into `dx`. There is no
# single number to differentiate. So make one: choose some `dy` and take
#
# $$L = \sum_i y_i \cdot dy_i$$
#
# The gradient of this $L$ with respect to $y$ is `dy`, so `backward(dy)` must be the gradient of $L$ with
# respect to $x$. And $L$ is a number, so that differences work. Element by element:


# %%
def differences(forward, x, dy, h=1e-5):
    """The gradient of sum(forward(x) * dy) with respect to x, by two-sided differences."""
    dx = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        moved = x.copy()
        moved[place] = x[place] + h
        plus = np.sum(forward(moved) * dy)
        moved[place] = x[place] - h
        minus = np.sum(forward(moved) * dy)
        dx[place] = (plus - minus) / (2 * h)
    return dx


def error(a, c):
    """The largest difference between two gradients, relative to the largest number in either."""
    return abs(a - c).max() / max(abs(a).max(), abs(c).max(), 1e-30)


# %% tags=["check"]
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 4))
y, cache = ops.scaled_tanh(x)
dy = rng.normal(size=y.shape)
(dx,) = ops.scaled_tanh_backward(dy, cache)
print(f"error of the scaled tanh: {error(dx, differences(lambda x: ops.scaled_tanh(x)[0], x, dy)):.0e}")

# %% [markdown]
# Why *relative*? A difference of 0.001 is nothing for a gradient of 1000, and everything for a gradient of
# 0.0001.
#
# What is a good error? In float64 with a smooth operation: $10^{-7}$ and less. Around $10^{-3}$ something is
# wrong, often by a small term that has been forgotten. Around 1, something is completely wrong.
#
# ## Why `dy` must be random
#
# Many people check with `dy` all ones, because then $L$ is just the sum of `y`. **Predict:** the operation
# below subtracts the mean of its input. Its backward is wrong: it forgets that the mean depends on `x` too.
# Will a check with ones notice?


# %%
def centre(x):
    return x - x.mean()


def centre_backward_wrong(dy):
    return 0 * dy


def centre_backward(dy):
    return dy - dy.mean()


# %% tags=["check"]
x = rng.normal(size=6)
ones, random = np.ones(6), rng.normal(size=6)
for name, dy in (("ones", ones), ("random", random)):
    numeric = differences(centre, x, dy)
    wrong = centre_backward_wrong(dy)
    print(f"dy {name:7} wrong backward: {abs(wrong).max():.3f}, differences: {abs(numeric).max():.3f}")

# %% [markdown]
# With ones, the true gradient is *zero*: the sum of centred numbers is always 0, whatever `x` is. A backward
# that returns nothing but zeros passes. All norms (lesson 7) have this property, and a check with ones
# proves nothing for them.
#
# With random `dy`, every number of the output counts with another weight, and mistakes cannot cancel. The
# rule: **a check in which the true gradient is zero proves nothing.**
#
# Other checks that prove nothing:
#
# - all axes have the same size: then rows and columns, or channels in and out, may be swapped unnoticed.
#   Take sizes that are all different;
# - a batch of one image: a missing sum over the batch is not seen;
# - inputs that are all positive: ReLU's mask is never used;
# - a stride of 1, no padding, a scale of 1.
#
# ## Kinks
#
# ReLU has a corner at 0. If `x` is within `h` of it, one side of the difference is on the flat part and the
# other is not:

# %% tags=["check"]
x = np.array([1.0, 0.000004, -2.0])
dy = np.ones(3)
print("differences:", differences(lambda x: np.maximum(x, 0), x, dy))
print("backward:   ", ops.relu_backward(dy, ops.relu(x)[1])[0])

# %% [markdown]
# The second number is 0.7, and neither 0 nor 1. Nothing is wrong: there is no derivative that differences
# could find. A good check notices such places (the two one-sided differences disagree) and leaves them out,
# but counts them, so that not everything is left out.
#
# ## The library's checker
#
# `gradcheck(forward, backward, inputs)` does all this: float64, random `dy`, kinks, inputs that must not be
# changed, the same result twice. And when a gradient is wrong, it tries out which *mistake* would give
# exactly these numbers. Here is a right operation:

# %%
x = rng.normal(size=(3, 5, 7, 2))
gamma, beta = rng.normal(size=2), rng.normal(size=2)
gradcheck(ops.instance_norm, ops.instance_norm_backward, (x, gamma, beta))

# %% [markdown]
# And here are three broken ones. Read each backward first and find the mistake yourself.


# %%
def scale(x, w):
    """y = x * w for images x (N, H, W, C) and one number w for each channel."""
    return x * w, (x, w)


def scale_backward_1(dy, cache):
    x, w = cache
    return dy * w, (dy * x).sum(axis=(1, 2))[0]


gradcheck(scale, scale_backward_1, (x, gamma))

# %% [markdown]
# A report has three parts. First the verdict for each gradient, with its error. Then, for the first one that
# is wrong, a **map** of where it is wrong, and the three numbers that are wrong most. Last the cause, if one
# was found, and what to try.
#
# Here only the first image of the batch is added up. The map shows little: both numbers are wrong, and as if
# at random, which is how it looks when a share is missing. The diagnosis is sure all the same. The checker
# has measured the Jacobian of `forward` (lesson 2), and what `backward` sends back from each element of
# `dy`. For the `dy` of sample 0 both agree to six digits; for the other samples `backward` sends nothing.
# Random numbers do not agree to six digits by chance. The next one:


# %%
def scale_backward_2(dy, cache):
    x, w = cache
    return dy * w, (dy * x).mean(axis=(0, 1, 2))


gradcheck(scale, scale_backward_2, (x, gamma))


# %%
def shifted_copy(x):
    """Each pixel plus its right neighbour."""
    return x[:, :, :-1] + x[:, :, 1:], x.shape


def shifted_copy_backward(dy, shape):
    dx = np.zeros(shape)
    dx[:, :, :-1] = dy
    dx[:, :, 1:] = dy
    return (dx,)


gradcheck(shifted_copy, shifted_copy_backward, (x,))

# %% [markdown]
# The last one is `=` where `+=` was needed: two paths meet (lesson 2), and the second assignment overwrote
# the first.
#
# ## How does the checker know?
#
# It has a list of possible slips: a factor, a transposed or flipped array, a gradient of one image instead
# of all, a missing sum, a missing term, an old cache ... For each it computes the gradient that this slip
# *would* give, and compares all digits. Only an explanation that fits exactly is named. That is the
# scientific method in a few hundred lines.
#
# Sometimes no rearrangement of the gradient gives the right one, and it must ask in another way. Somebody
# remembers that "backward is a convolution with the flipped kernel" and flips it where no flip is needed
# (lesson 5 derives what is needed):


# %%
def conv(x, w):
    return ops.conv2d(x, w)[0], (x, w)


def turned_backward(dy, cache):
    x, w = cache
    _, dw, _ = ops.conv2d_backward(dy, ops.conv2d(x, w)[1])
    dx, _, _ = ops.conv2d_backward(dy, ops.conv2d(x, w[::-1, ::-1])[1])
    return dx, dw


gradcheck(conv, turned_backward, (x, rng.normal(size=(3, 3, 2, 4))))

# %% [markdown]
# No element of `dx` is right. But when the checker runs the same `backward` after a forward with `w` turned
# round, `dx` is right. So `backward` uses `w` the wrong way round.
#
# And here the mean of each image and channel is subtracted, and backward takes the mean for a constant:


# %%
def centre_each(x):
    return x - x.mean(axis=(1, 2), keepdims=True), None


def centre_each_backward(dy, cache):
    return (dy.copy(),)


gradcheck(centre_each, centre_each_backward, (x,))

# %% [markdown]
# Look at the map: the error is *one number* for each photo and channel. What is the same for all pixels of a
# channel is the mean of something. Each pixel's `x` changes the mean a little, and the mean changes every
# pixel's `y`. That path back was forgotten. (Lesson 7 walks it.)
#
# ## How to read the rest of a report
#
# - **Kinks** are left out and counted. What `backward` does exactly at a kink is tried separately: for ReLU,
#   0 at 0 is the rule, so `>` and not `>=`; and of several equal largest values in a pool only one gets the
#   gradient.
# - **INCONCLUSIVE**: a check in which nothing was tested has not passed. It says so when the gradient is
#   zero wherever it was measured, when more than half of the elements are at kinks, and when `forward`
#   computes in float32, whose seven digits are too few.
# - **float32**: networks train in it. An exercise that makes float64 out of float32 fails, with the array
#   that is to blame.
# - **Time**: in an exercise, a call that runs for more than 10 seconds on these small images is stopped, and
#   its line is named.
#
# In the exercises, the forward pass is compared with the library's before any gradient, and of several
# mistakes you see the first one alone. All names of causes, and how often the name is right: [the exercises'
# page](exercises/README.md#the-names-of-the-causes).

# %% [markdown]
# ## Exercise: write a gradient check
#
# Write `my_check`. It gets an operation in the form of this library and the inputs as a tuple of arrays, and
# returns for each input the relative error. Use your own `dy`, random, and the functions above as you like.


# %%
def my_check(forward, backward, inputs):
    """Return [error of the gradient with respect to each input]."""
    raise NotImplementedError("not yet written")


# %%
def try_check(check):
    arrays = (rng.normal(size=(3, 4, 2)), rng.normal(size=2))
    right = lambda dy, cache: (dy * cache[1], (dy * cache[0]).sum(axis=(0, 1)))  # noqa: E731
    try:
        good = check(scale, right, arrays)
        bad = check(scale, lambda dy, cache: (dy * cache[1], right(dy, cache)[1] / 2), arrays)
    except NotImplementedError:
        return "not written yet"
    if max(good) < 1e-6 and bad[0] < 1e-6 and bad[1] > 0.1:
        return f"right: a correct gradient gives {max(good):.0e}, half a gradient gives {bad[1]:.2f}"
    return f"not yet: for a correct backward {good}, for one with half of dw {bad}"


print(try_check(my_check))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `y, cache = forward(*inputs)`, then a random `dy` of y's shape, then `backward(dy, cache)`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# For input number k, `differences` needs a function of that one array: put the array into a copy of the
# tuple at place k.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def my_check(forward, backward, inputs):
#     y, cache = forward(*inputs)
#     dy = np.random.default_rng(1).normal(size=y.shape)
#     found = []
#     for k, gradient in enumerate(backward(dy, cache)):
#         moved = lambda array: forward(*inputs[:k], array, *inputs[k + 1 :])[0]
#         found.append(error(gradient, differences(moved, inputs[k], dy)))
#     return found
# ```
#
# </details>
#
# ## What you have seen
#
# - Two-sided differences have an error of $h^2$ and rounding of $10^{-16} / h$: $h = 10^{-5}$ in float64.
# - A random `dy` makes a number out of an array, and sees mistakes that ones do not.
# - Different sizes for all axes, more than one image, both signs, and no true gradient that is zero.
#
# **In the library:** `gradcheck/measure.py` measures, `gradcheck/slips.py` looks for the mistake; `tinynst
# gradcheck` checks every operation, and `tinynst gradcheck FILE.py` checks yours.
#
# **Next:** what the network should be good at: losses.
