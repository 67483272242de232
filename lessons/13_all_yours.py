# %% [markdown]
# # 13. All yours
#
# **After this lesson you can** put your own fourteen files in place of the library's functions, train the
# painting network on nothing but your code, and say where your code and ours differ, and why.
#
# About 45 minutes, of which two are computing. You need the exercises of the lessons before, or as many of
# them as you have solved: what is missing stays the library's.

# %%
import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, load_style, ops, optim, save, show, style_net, stylize, use
from tinynst.data import images, photos
from tinynst.losses import StyleObjective
from tinynst.networks.vgg import STYLE_LAYERS
from tinynst.samples import PHOTOS, STYLES

# %% [markdown]
# Here is what the library makes of a photo, with the network of one style that ships. Remember this picture:
# at the end of the lesson the same picture is painted again, and every convolution, norm, ReLU and residual
# block in it is yours.

# %%
photo = images.load(PHOTOS / "neuschwanstein.jpg", size=192)


def paint():
    """The photo as a painting, and the seconds that the processor works on it, the better of two."""
    net, seconds = load_style("starry_night_single"), []
    for _ in range(2):
        begin = time.process_time()
        painted = stylize(net, photo)
        seconds.append(time.process_time() - begin)
    return painted, min(seconds)


painted_by_the_library, seconds_of_the_library = paint()
show(photo=photo, painted_by_the_library=painted_by_the_library)

# %% [markdown]
# ## Where your files lie
#
# Each exercise has a file in the folder `lessons/exercises`: `relu.py`, `conv.py`, `adam.py` and eleven more.
# As they come, they are **stubs**: functions that raise "not yet written". You can get your solution into its
# file in two ways.
#
# - Write it there, with any editor. `tinynst gradcheck lessons/exercises/conv.py` says whether it is right.
# - Solve it in a notebook, and save it from there. In the cell after your functions, write
#   `save("conv2d", conv2d, conv2d_backward)` in place of `check(...)`. It checks them, and if they pass, it
#   writes their text into `lessons/exercises/conv.py`. What does not pass is not saved.
#
# This notebook must run for everybody, also for those who have not solved anything. So it works in a
# temporary folder, `mine`, with the solutions of the course, which lie in `lessons/solutions`. **To run it
# with your own files, change `solutions` to `exercises` in the next cell.** Everything below works the same.

# %%
lessons = Path.cwd()  # a notebook runs in the folder in which it lies
source = lessons / "solutions"  # your own: lessons / "exercises"
os.chdir(tempfile.mkdtemp())  # so that the paths below are short
mine = Path("mine")
mine.mkdir()
print(*sorted(path.name for path in source.glob("*.py")))

# %% [markdown]
# ## The first one
#
# We begin with an empty folder, and save one exercise as you would from any lesson. `save` takes the name of
# the operation and your functions. (The `folder` is given only because this notebook must not touch your
# files.)


# %%
def relu(x):
    return np.maximum(x, 0), x > 0


def relu_backward(dy, cache):
    return (dy * cache,)


save("relu", relu, relu_backward, folder=mine)

# %%
print((mine / "relu.py").read_text())

# %% [markdown]
# And now the switch. `use(FOLDER)` checks each file in the folder, and puts what passes in the place of the
# library's function of that name.
#
# **Predict before you run:** after `use`, which file does the function `ops.relu` come from?

# %%
before = ops.relu
use(mine)


def file_of(function):
    """The name of the file in which a function was written."""
    function = getattr(function, "__wrapped__", function)  # `use` puts a thin wrapper around yours
    return Path(function.__code__.co_filename).name


print(f"ops.relu before: {file_of(before)}, now: {file_of(ops.relu)}")

# %% [markdown]
# How can a function be exchanged from outside? A **module** is a namespace: a table of names and values. When
# a layer calls `ops.relu(x)`, Python looks the name up *at that moment*. `use` goes through the library's
# modules and puts your function wherever the old one stood. This is called **monkey patching**. It is useful
# in tests and lessons, and confusing elsewhere.
#
# It follows that a name that you imported *before* keeps the old function: `before`, above, is still the
# library's. The same is true of a network that was made before. So in this lesson networks are made after
# `use`, and we write `optim.Adam`, not `Adam`.
#
# The wrapper exists because the library asks for a little more than you wrote: its `conv2d` can apply a ReLU
# in the same call, for speed. The wrapper calls your `conv2d` and then your ReLU.
#
# ## A mistake on the way
#
# Suppose your convolution has a mistake. Its forward pass is right, and in the backward pass one character is
# missing: `=` in place of `+=` where the patches overlap (lesson 2: *where paths meet, slopes add*). We plant
# it:

# %%
text = (lessons / "solutions" / "conv.py").read_text()
wrong = text.replace("dxp[at] += dy @ w[i, j].T", "dxp[at] = dy @ w[i, j].T")
assert wrong != text
(mine / "conv.py").write_text(wrong)
names = use(mine)

# %% [markdown]
# The ReLU is yours, the convolution is still the library's. Without a check, a network may well train with
# such a mistake, only worse than it should. What does the check say?

# %%
from tinynst.gradcheck.grade import grades  # noqa: E402  what `tinynst gradcheck mine/conv.py` prints

(grade,) = grades(mine / "conv.py")
print(grade.text)

# %% [markdown]
# It does not only say *wrong*. It tries the mistakes that people make, one after the other, and when one of
# them gives exactly your numbers, it names it.
#
# ## All fourteen
#
# Now the whole folder. It takes some seconds, because every file is checked. (A folder that has not changed
# is not checked again.)

# %%
for path in source.glob("*.py"):
    shutil.copy(path, mine)
names = use(mine)
print(f"{len(names)} of 14 are yours")

# %% [markdown]
# Fourteen files: how much code is that? Count the lines that are neither empty nor a text:

# %% tags=["check"]
written = [path.read_text().split('"""')[-1].splitlines() for path in source.glob("*.py")]
print(f"{sum(bool(line.strip()) for lines in written for line in lines)} lines of NumPy")

# %% [markdown]
# ## VGG-16 on your code
#
# VGG-16 is made of three operations: convolution, ReLU and max pooling. All three are yours now. It was
# trained by other people, in another language, on other machines. If your convolution turned its kernel
# round, or moved the picture by a pixel, its features would be nonsense.
#
# We compare features and the gradient with respect to the picture, in float32, the precision in which
# networks are trained, and in float64.


# %%
def difference(a, b):
    """The largest difference, as a share of the largest number."""
    return abs(a - b).max() / abs(b).max()


def seen(picture):
    """VGG's features of a picture, and the gradient of the sum of their squares."""
    vgg = VGG16.load()
    features = vgg.forward(picture, STYLE_LAYERS)
    gradient = vgg.backward({name: 2 * f for name, f in features.items()})
    return {**features, "gradient": gradient}


small = images.load(PHOTOS / "chelsea.jpg", size=64)[None]
results = {}
for who, folder in (("library", None), ("yours", mine)):
    use(folder)
    results[who] = {dtype: seen(small.astype(dtype)) for dtype in ("float32", "float64")}

# %% tags=["check"]
for name in (*STYLE_LAYERS, "gradient"):
    for dtype, bound in (("float32", 1e-4), ("float64", 1e-12)):
        apart = difference(results["yours"][dtype][name], results["library"][dtype][name])
        assert apart < bound, (name, dtype, apart)
        print(f"{name}, {dtype}: closer than {bound:g}: {apart < bound}")

# %% [markdown]
# ## Where do the last digits come from?
#
# The two are not *equal*. Look at the differences themselves:

# %%
layers = (*STYLE_LAYERS, "gradient")
figure, axes = plt.subplots(figsize=(7, 3.5))
for dtype in ("float32", "float64"):
    apart = [difference(results["yours"][dtype][name], results["library"][dtype][name]) for name in layers]
    axes.semilogy(layers, apart, "o-", label=dtype)
    axes.axhline(np.finfo(dtype).eps, linestyle=":", color="grey")
axes.set_ylabel("largest difference / largest number")
axes.set_title("your VGG beside the library's (dotted: the spacing of numbers near 1)")
axes.legend()
plt.show()

# %% [markdown]
# Nobody has made a mistake. A float32 holds about 7 digits, a float64 about 16. Each addition rounds the last
# one, and so the *order* of additions changes it:

# %% tags=["check"]
a, b, c = np.float32(1e8), np.float32(-1e8), np.float32(1)
print(f"(a + b) + c = {(a + b) + c}, a + (b + c) = {a + (b + c)}")

# %% [markdown]
# Your convolution adds nine products of matrices, one for each place in the kernel. The library's uses the
# method of Winograd for 3 x 3 kernels, which needs less than half of the multiplications and adds in quite
# another order. That in float64 the difference shrinks by nine powers of ten is the proof that it is
# rounding. A mistake would have stayed as large as it was.
#
# ## The painting network's gradients
#
# Now the other network, which has what VGG lacks: norms, padding, residual blocks, enlargement and tanh. We
# build it in two ways, so that all operations get their turn: with instance norm and reflection padding in
# each layer, and, as in the paper, with batch norm and transposed convolutions.

# %%
KINDS = {
    "instance norm, nearest": {"norm": "instance", "upsample": "nearest", "padding": "each"},
    "batch norm, transposed": {"norm": "batch", "upsample": "transpose", "padding": "outer"},
}


def gradients(kind):
    """The gradients of all parameters for a random upstream gradient, in float64."""
    net = style_net(width=4, seed=0, dtype=np.float64, **KINDS[kind])
    y = net.forward(small.astype(np.float64), training=True)
    net.backward(np.random.default_rng(0).standard_normal(y.shape))
    return net.gradients()


found = {}
for who, folder in (("library", None), ("yours", mine)):
    use(folder)
    found[who] = {kind: gradients(kind) for kind in KINDS}

# %% tags=["check"]
for kind in KINDS:
    theirs, yours = found["library"][kind], found["yours"][kind]
    largest = max(abs(g).max() for g in theirs.values())
    close = [name for name in theirs if abs(yours[name] - theirs[name]).max() < 1e-12 * largest]
    zero = [name for name in theirs if abs(theirs[name]).max() < 1e-12 * largest]
    print(f"{kind}: {len(close)} of {len(theirs)} gradients agree to twelve digits")
    print(f"    of them zero: {', '.join(zero) or 'none'}")

# %% [markdown]
# Five gradients are zero, in both implementations. Is that a mistake? These are the shifts $\beta$ at the end
# of the residual blocks. Such a shift adds the same number to a whole channel. No ReLU follows, only more
# sums, then a convolution and an instance norm, which takes away the mean, and with it the shift. Whatever
# $\beta$ is, the result does not change, so its slope is zero. (In the second network the padding with zeros
# at the convolution makes a difference at the border.) A check of gradients also teaches you about the
# network.
#
# ## What does it cost?
#
# Correct is one thing, fast is another. One step of training is: forward, the objective with VGG, backward,
# Adam. We take one step with the library alone, then with *one* of your files in place of the library's, for
# each of them.
#
# **Predict before you run:** which of your files costs the most?

# %%
painting = images.load(STYLES / "starry_night.jpg", size=128, side="long")
style_layers = {"relu1_2": 0.5, "relu2_2": 0.5, "relu3_3": 0.5, "relu4_3": 0.5}


def step_seconds(repeats=3):
    """Seconds of work that a step of training takes on one photo of 64 pixels, the best of a few."""
    net = style_net(width=8, seed=0, **KINDS["instance norm, nearest"])
    vgg = VGG16.load()
    critic = StyleObjective(vgg, painting[None], content={"relu3_3": 1.0}, style=style_layers, tv=1e-6)
    adam, best = optim.Adam(net.parameters(), lr=1e-3), np.inf
    for _ in range(repeats + 1):  # the first one prepares
        begin = time.process_time()  # other programs do not count
        y = net.forward(small, training=True)
        _, dy = critic(y, critic.targets(small))
        net.backward(dy)
        adam.step(net.gradients())
        best = min(best, time.process_time() - begin)
    return best


one = Path("one")
one.mkdir()
use(None)
alone = {"nothing": step_seconds()}
for path in sorted(mine.glob("*.py")):
    shutil.copy(path, one / "file.py")
    with contextlib.redirect_stdout(None):  # what `use` says of the thirteen others
        use(one)
    alone[path.stem] = step_seconds()

# %%
figure, axes = plt.subplots(figsize=(8, 4))
axes.barh(list(alone), [1000 * value for value in alone.values()])
axes.axvline(1000 * alone["nothing"], color="black", linestyle=":")
axes.invert_yaxis()
axes.set_xlabel("milliseconds of the processor for a step of training")
axes.set_ylabel("yours is only this file")
plt.show()

# %% [markdown]
# One bar stands out: convolution. Nearly all of the time of such a network is convolution, so that is where
# work on speed pays, and all the rest can be written for the reader. (That is what **profiling** means:
# measure before you improve.) Lesson 5 said how many multiplications a convolution needs; lesson 16 shows how
# the library saves more than half of them.
#
# ## Train it
#
# The loop is that of lesson 12, with one photo a step, at 64 pixels. First the library, then you, from the
# same random numbers: the same starting weights, the same photos in the same order.

# %%
cat = images.load(PHOTOS / "chelsea.jpg", size=96)
dataset = photos.open_dataset(PHOTOS, side=96)


def training(steps, dtype=np.float32):
    """Train a fresh network. Returns the network, the losses and the seconds of the processor."""
    net = style_net(width=8, seed=0, dtype=dtype, **KINDS["instance norm, nearest"])
    vgg, wanted = VGG16.load(), painting[None].astype(dtype)
    critic = StyleObjective(vgg, wanted, content={"relu3_3": 1.0}, style=style_layers, tv=1e-6)
    adam, losses, begin = optim.Adam(net.parameters(), lr=3e-3), [], time.process_time()
    adam.rates = {"out.w": 0.1, "out.b": 0.1}
    with photos.batches(dataset, batch=1, size=64, seed=1) as loaded:
        for _ in range(steps):
            x = next(loaded).astype(dtype)
            y = net.forward(x, training=True)
            terms, dy = critic(y, critic.targets(x))
            net.backward(dy)
            adam.step(net.gradients())
            losses.append(terms["total"])
    return net, losses, time.process_time() - begin


STEPS = 80
use(None)
their_net, their_losses, their_seconds = training(STEPS)
their_cat = their_net.forward(cat[None])[0]
print(f"library: {STEPS} steps in {their_seconds:.0f} s")

# %%
use(mine)
your_net, your_losses, your_seconds = training(STEPS)
your_cat = your_net.forward(cat[None])[0]
print(f"yours: {STEPS} steps in {your_seconds:.0f} s, {your_seconds / their_seconds:.1f} times as long")

# %%
show(trained_by_the_library=their_cat, trained_on_your_code=your_cat)

# %%
double = training(10, np.float64)[1]
use(None)
their_double = training(10, np.float64)[1]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.semilogy(their_losses, label="library")
left.semilogy(your_losses, "--", label="yours")
left.set_xlabel("step")
left.set_ylabel("total loss (float32)")
left.legend()
for label, yours, theirs in (("float32", your_losses, their_losses), ("float64", double, their_double)):
    right.semilogy(np.maximum(abs(np.array(yours) / theirs - 1), 1e-17), label=label)
right.set_xlabel("step")
right.set_ylabel("difference of the losses, as a share")
right.legend()
plt.show()

# %% tags=["check"]
print(f"float64, ten steps: the losses agree to nine digits: {np.allclose(double, their_double, 1e-9, 0)}")

# %% [markdown]
# Eighty steps are few: the two cats are rough sketches, alike in kind and different in every stroke. The
# curves on the left cannot be told apart by how good they are.
#
# Look at the right plot. In the first step the float32 losses agree to about six digits: that is rounding.
# Then the difference grows, and after ten steps it is a few percent. Is there a mistake after all? No: in
# float64 the two trainings stay together to more than twelve digits.
#
# Why does the last digit of a float32 come to matter?
#
# - Networks have kinks. Where a number is within a rounding error of zero, ReLU lets the gradient pass in one
#   program and not in the other; max pooling chooses another of two nearly equal neighbours. In float64
#   hardly any number lies so close to a kink.
# - Adam divides by the size of the gradient. A number whose gradient is *nearly zero* moves as far as any
#   other, and its direction may be decided by rounding.
# - Each step begins where the one before ended. Small differences are carried along and grow, as in the
#   weather.
#
# So two trainings agree in their *curves* and in how well they paint, but not in their weights, and not in
# every stroke of the picture. Whoever compares two implementations must compare single steps, best in
# float64, and never the weights after a thousand steps.
#
# ## The same picture, by you
#
# One promise is left. The network that ships has been trained for hours; its weights are numbers in a file,
# and they do not mind whose convolution they are multiplied by.

# %% tags=["cover"]
names = use(mine)
painted_by_you, seconds_of_yours = paint()
print(f"library: {seconds_of_the_library:.2f} s, yours: {seconds_of_yours:.2f} s")
show(painted_by_the_library=painted_by_the_library, painted_by_you=painted_by_you)

# %% tags=["check"]
apart = abs(np.asarray(painted_by_you, float) - np.asarray(painted_by_the_library, float))
print(f"pixels are 0 to 255; more than one grey level apart: {(apart > 1).mean():.0%} of the numbers")

# %% [markdown]
# You have written a network's layers, its losses, its optimiser, and the gradients of all of them, and it
# paints. (One small thing was no exercise and is still the library's: enlarging by copying pixels. In a
# network of many styles, your instance norm gets the row of each style.)
#
# ## Exercise: swap them in
#
# How far are your own files? This cell uses what you have in `lessons/exercises`. In the notebook as it
# comes, nothing is written yet.

# %% tags=["exercise"]
names = use(lessons / "exercises")

# %% [markdown]
# When all fourteen are on, go up to the cell that says `source = ...`, change it, and run the lesson again.
#
# <details><summary>Hint 1: it says "wrong"</summary>
#
# Run `tinynst gradcheck lessons/exercises/NAME.py` in a terminal. It shows one mistake at a time.
#
# </details>
# <details><summary>Hint 2: it works in the notebook, and the saved file does not pass</summary>
#
# Your functions are saved, the functions of the notebook that they call, and `import numpy as np`. If they
# need another import or a variable of the notebook, put it *inside* the function.
#
# </details>
# <details><summary>Hint 3: I want to start again</summary>
#
# `git checkout lessons/exercises/conv.py` brings the stub back. The solutions are in `lessons/solutions`.
#
# </details>
#
# Then try what the check cannot see. Make your convolution faster: copy all patches into one large matrix and
# multiply once (lesson 5). Is one large product faster than nine small ones? Run "What does it cost?" again.
#
# ## Do it large
#
# Everything that the library can do now runs on your code, until `use(None)` takes it out. And `train` takes
# your folder as an option. An hour of training at 128 pixels, from the network that ships, with your own
# painting:
#
# ```python
# from tinynst import StyleSettings, train
#
# train(StyleSettings(style="mine.jpg", iterations=800, image_size=128, ops=lessons / "exercises"))
# ```
#
# In a terminal: `tinynst train --style mine.jpg --ops lessons/exercises`. That run can be stopped and resumed
# as any other; it uses your functions again.

# %%
use(None)
print(f"ops.relu comes from {file_of(ops.relu)} again")

# %% [markdown]
# ## What you have seen
#
# - `save(NAME, functions)` writes what you solved into its file; `use(FOLDER)` takes what passes its check
#   and names what does not.
# - The same weights give the same picture on any right implementation. The last digits differ, because the
#   order of additions does; in float64 they differ nine powers of ten less.
# - Trainings that differ in the last digit drift apart. Compare single steps.
# - Nearly all the time is convolution.
#
# **In the paper:** all of it; the fourteen files are what its sections 3.1 to 3.3 need. **In the library:**
# `swap.py` holds `use` and `save`, `gradcheck/grade.py` checks a file, and `ops/` is what you have replaced.
#
# **Next:** lesson 14, many paintings in one network, and a new one in seconds; lesson 15, the other half of
# the paper; lesson 16, how the library makes the large bar smaller.
