# %% [markdown]
# # 12. Train it
#
# **After this lesson you can** train the painting network with a loop of twelve lines that hides nothing, and
# you know what Adam does in each of its steps.
#
# Everything is there: photos, a painting, a network, VGG-16 that looks at the result, losses, gradients. Now
# they are put together. About 45 minutes, of which a minute and a half is training. You need the lessons
# before.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, check, show, style_net
from tinynst.data import images, photos
from tinynst.losses import StyleObjective
from tinynst.optim import Adam
from tinynst.samples import PHOTOS, STYLES

cat = images.load(PHOTOS / "chelsea.jpg", size=96)
painting = images.load(STYLES / "starry_night.jpg", size=128, side="long")
show(photo=cat, painting=painting)

# %% [markdown]
# ## The parts
#
# **The network** paints. We take a small one: 8 channels in its first layer where the paper has 32. With
# random weights, it turns the cat into something without meaning.

# %%
net = style_net(width=8, upsample="nearest", padding="each", seed=0)
print(repr(net))

# %%
show(photo=cat, before_training=net.forward(cat[None])[0])

# %% [markdown]
# **The critic.** VGG-16 has been trained to tell objects apart, and it is never changed here. It looks at the
# result, and the objective compares what it sees: at `relu3_3` with what it sees in the *photo* (content),
# and at four layers the Gram matrices with those of the *painting* (style, lesson 9).

# %%
vgg = VGG16.load()
style_layers = {"relu1_2": 0.5, "relu2_2": 0.5, "relu3_3": 0.5, "relu4_3": 0.5}
objective = StyleObjective(vgg, painting[None], content={"relu3_3": 1.0}, style=style_layers, tv=1e-6)

terms, dy = objective(net.forward(cat[None]), objective.targets(cat[None]))
print({name: f"{value:,.0f}" for name, value in terms.items()})
print("and the gradient with respect to every pixel of the result:", dy.shape)

# %% [markdown]
# **The photos.** The network must paint *any* photo, so it sees another one in each step: random squares, cut
# out of the 80 photos that ship, half of them mirrored. There are no right answers in the data. The photo
# itself is the target for content, the painting for style.

# %%
dataset = photos.open_dataset(PHOTOS, side=128)
with photos.batches(dataset, batch=4, size=64, seed=0) as loaded:
    example = next(loaded)
show(*example)

# %% [markdown]
# ## The loop
#
# Here is all of training. Read it aloud: a batch of photos; the network paints them; the critic gives a loss,
# and its gradient with respect to the painted pixels; the gradient goes backward through the network; the
# optimiser changes the weights.


# %%
def training(net, optimizer, steps, batch=1, size=64, seed=1, watch=()):
    """Train for some steps. Returns the losses, and the cat as painted after the steps in `watch`."""
    losses, pictures = [], {}
    with photos.batches(dataset, batch, size, seed) as loaded:
        for step in range(steps):
            if step in watch:
                pictures[f"step_{step}"] = net.forward(cat[None])[0]
            x = next(loaded)
            y = net.forward(x, training=True)
            terms, dy = objective(y, objective.targets(x))
            net.backward(dy)
            optimizer.step(net.gradients())
            losses.append(terms)
    pictures[f"step_{steps}"] = net.forward(cat[None])[0]
    return losses, pictures


begin = time.perf_counter()
adam = Adam(net.parameters(), lr=3e-3)
adam.rates = {
    "out.w": 0.1,
    "out.b": 0.1,
}  # the last layer adds up 648 products for each number: smaller steps there
losses, pictures = training(net, adam, 300, watch=(20, 80, 160))
print(f"{len(losses)} steps in {time.perf_counter() - begin:.0f} s")

# %% tags=["cover"]
show(photo=cat, **pictures, columns=5)

# %%
figure, axes = plt.subplots(figsize=(7, 3.5))
for name in ("content", "style"):
    axes.semilogy([terms[name] for terms in losses], label=name)
axes.set_xlabel("step")
axes.set_ylabel("weighted loss")
axes.legend()
plt.show()

# %% [markdown]
# Look at the two curves. The style loss falls by a factor of ten and more: at first nearly everything about
# the picture's texture is wrong. The content loss falls only a little, because the two want different things,
# and the weights say how much each counts. The result is a compromise, and the compromise is a painting.
# (Five minutes more would sharpen it; the networks that ship have had hours.)
#
# Why does the loss jump from step to step? Each step sees other photos. The gradient of two photos is only an
# estimate of the gradient of all. Descent with such estimates is called **stochastic gradient descent**.
# Smaller batches are noisier and cheaper. With a fixed number of minutes, many noisy steps mostly win, so we
# take one photo a step.
#
# ## What is in the gradient
#
# After `net.backward`, each parameter has a gradient of its own shape. Their sizes are very different:

# %%
sizes = {name: float(abs(g).mean()) for name, g in net.gradients().items()}
figure, axes = plt.subplots(figsize=(9, 3))
axes.bar(range(len(sizes)), sizes.values())
axes.set_yscale("log")
axes.set_xlabel("parameter, from the first layer to the last")
axes.set_ylabel("mean |gradient|")
plt.show()
smallest, largest = min(sizes, key=sizes.get), max(sizes, key=sizes.get)
print(f"smallest: {smallest}, largest: {largest}, ratio {sizes[largest] / sizes[smallest]:,.0f}")

# %% [markdown]
# (The smallest belongs to a constant that is added to a whole channel, and that the next norm takes away
# again: its true gradient is zero.)
#
# With plain descent, one learning rate has to serve all of them. Too large for one is far too small for
# another: the narrow valley of lesson 1, in thousands of directions.
#
# ## Adam
#
# **Adam** (Kingma and Ba, 2014) gives each number a step of its own size. It keeps two running means for each
# parameter.
#
# The first is a running mean of the gradient, with $\beta_1 = 0.9$:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g$$
#
# It averages over about the last $1 / (1 - \beta_1) = 10$ steps, so that the noise of single batches partly
# cancels.
#
# The second is a running mean of the *squared* gradient, with $\beta_2 = 0.999$, over about a thousand steps:
#
# $$v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# Its root $\sqrt{v}$ is the usual size of this number's gradient. Divide by it, and all gradients come to
# about the same size:
#
# $$p \leftarrow p - \text{lr} \cdot \frac{m}{\sqrt{v} + \epsilon}$$
#
# If the gradient has always the same sign, $m / \sqrt{v}$ is near 1, and the number moves by `lr` in every
# step, *however large its gradient is*. If the sign changes from step to step, $m$ is near 0 and the number
# rests. The tiny $\epsilon$ avoids a division by zero.
#
# ## The start
#
# Both means start at zero, and that makes the first steps wrong. Suppose the gradient is always $g$. After
# one step $m = 0.1\, g$, which is not the mean of what has been seen. In general, after $t$ steps,
#
# $$m_t = (1 - \beta_1) \sum_{k=1}^{t} \beta_1^{t-k}\, g = (1 - \beta_1) \frac{1 - \beta_1^t}{1 -
# \beta_1}\, g = (1 - \beta_1^t)\, g$$
#
# (a geometric series). So divide by $1 - \beta_1^t$, and the mean is right from the first step on. The same
# for $v$:
#
# $$\hat m = \frac{m}{1 - \beta_1^t}, \qquad \hat v = \frac{v}{1 - \beta_2^t}, \qquad
#   p \leftarrow p - \text{lr} \cdot \frac{\hat m}{\sqrt{\hat v} + \epsilon}$$
#
# **Predict:** without the correction, is the first step too small or too large? ($m$ is 10 times too small.
# And $\sqrt v$?)

# %% tags=["check"]
b1, b2, g = 0.9, 0.999, 5.0
m, v = (1 - b1) * g, (1 - b2) * g**2
print(f"first step without correction: {m / np.sqrt(v):.3f} lr")
print(f"with correction:               {(m / (1 - b1)) / np.sqrt(v / (1 - b2)):.3f} lr")

# %% [markdown]
# More than three times too large, just when the network knows least.
#
# ## Exercise: Adam
#
# Write the class. `parameters` is a dict of arrays that you change *in place* (`p -= ...`), because the
# network holds the same arrays. `gradients` has the same names.


# %% tags=["exercise", "adam"]
class MyAdam:
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        raise NotImplementedError("not yet written")

    def step(self, gradients):
        """Move every parameter by its gradient, {name: array}."""
        raise NotImplementedError("not yet written")


# %%
check("Adam", MyAdam)
# When it passes, keep it for lesson 13:
# from tinynst import save; save("Adam", MyAdam)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep `t`, the number of steps, and two dicts of zeros, `m` and `v`, with the parameters' names and shapes.
#
# </details>
# <details><summary>Hint 2</summary>
#
# In `step`: `t += 1`; for each name update m and v, divide by `1 - beta ** t`, and
# `p -= lr * m_hat / (np.sqrt(v_hat) + eps)`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# class MyAdam:
#     def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
#         self.parameters, self.lr, self.betas, self.eps, self.t = parameters, lr, betas, eps, 0
#         self.m = {name: np.zeros_like(p) for name, p in parameters.items()}
#         self.v = {name: np.zeros_like(p) for name, p in parameters.items()}
#
#     def step(self, gradients):
#         self.t += 1
#         b1, b2 = self.betas
#         for name, p in self.parameters.items():
#             g = gradients[name]
#             self.m[name] = b1 * self.m[name] + (1 - b1) * g
#             self.v[name] = b2 * self.v[name] + (1 - b2) * g**2
#             m, v = self.m[name] / (1 - b1**self.t), self.v[name] / (1 - b2**self.t)
#             p -= self.lr * m / (np.sqrt(v) + self.eps)
# ```
#
# </details>
#
# ## Does it matter?
#
# Plain descent and Adam, the same network, the same photos, 40 steps. For plain descent we look for a
# learning rate that works, by powers of ten, as one does in practice.


# %%
class Descent:
    """p -= lr * g, for comparison."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = parameters, lr

    def step(self, gradients):
        for name, p in self.parameters.items():
            p -= self.lr * gradients[name]


figure, axes = plt.subplots(figsize=(7, 3.5))
for label, make in {
    "Adam, 3e-3": lambda p: Adam(p, lr=3e-3),
    "descent, 1e-7": lambda p: Descent(p, 1e-7),
    "descent, 1e-8": lambda p: Descent(p, 1e-8),
    "descent, 1e-9": lambda p: Descent(p, 1e-9),
}.items():
    fresh = style_net(width=8, upsample="nearest", padding="each", seed=0)
    with np.errstate(all="ignore"):
        curve, _ = training(fresh, make(fresh.parameters()), 40)
    axes.semilogy([terms["total"] for terms in curve], label=label)
axes.set_xlabel("step")
axes.set_ylabel("total loss")
axes.legend()
plt.show()

# %% [markdown]
# ## Against optimising the picture itself
#
# In lesson 10 there was no network: L-BFGS moved the pixels of *one* picture. It gets a lower loss, and it
# has to work again for each photo. The network has done its work beforehand. How long does one photo take?

# %%
from tinynst.tools.optimize import descend, noise  # noqa: E402

begin = time.perf_counter()
painted = net.forward(cat[None])
one_pass = time.perf_counter() - begin
targets = objective.targets(cat[None])
total = objective(painted, targets)[0]["total"]

begin, equal = time.perf_counter(), None
for evaluation, (_, optimizer) in enumerate(descend(objective, targets, noise(*cat.shape[:2]), 40), start=1):
    if equal is None and optimizer.value <= total:
        equal = evaluation, time.perf_counter() - begin
print(f"one pass of the network: {1000 * one_pass:.0f} ms, loss {total:,.0f}")
print(f"L-BFGS after 40 evaluations: {time.perf_counter() - begin:.1f} s, loss {optimizer.value:,.0f}")
if equal:
    print(f"L-BFGS is as low as the network after {equal[0]} evaluations, {equal[1]:.1f} s")

# %% [markdown]
# A minute of training is equal to a few evaluations. The paper trained for 40,000 steps of four photos with a
# network of 32 channels, and its nets are equal to 50 to 100 evaluations, a thousand times faster than the
# optimisation that they replace. That is what "real-time" in its title means.
#
# ## Do it large
#
# The same loop, with checkpoints, plots and a way to go on after a break, is one command. From the network
# that ships, ten minutes on two cores:
#
# ```sh
# tinynst train --style mine.jpg
# ```
#
# or here: `run = train(StyleSettings(style="mine.jpg", iterations=200, image_size=128))`, with
# `from tinynst import train, StyleSettings`. The paper's way, on a GPU:
# `tinynst train --style mine.jpg --content photos/ --device cuda`.
#
# ## What you have seen
#
# - Training is a loop: photos, forward, loss and its gradient, backward, a step of the optimiser.
# - The data has no right answers. VGG compares the result with the photo for content and with the painting
#   for style.
# - Adam divides each gradient by its usual size, and corrects its two running means for their start at zero.
#
# **In the paper:** section 3 and equation 5. **In the library:** `training/loop.py` is this loop,
# `training/style.py` says what a step is, `optim.py` holds Adam.
#
# **Next:** the same loop on your own code.
