# %% [markdown]
# # 8. What VGG sees
#
# **After this lesson you can** build VGG-16 from three operations, say what each layer minds, put a
# gradient in at any layer and walk it back to the pixels, and find out what a layer still knows of a
# photo and what it has forgotten.
#
# About 55 minutes. You need lessons 1 and 2, and the convolution and the max pool of lessons 5 and 6.
#
# The painting network has a critic (lesson 0). In this lesson we look through the critic's eyes. Here is
# where we are going: on the left a photo; on the right a picture that was *never copied* from it, but
# made from nothing, out of what the middle of VGG knew of the photo.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, losses, ops, show
from tinynst.data import images
from tinynst.losses import StyleObjective
from tinynst.networks.vgg import LAYERS, MEAN_RGB
from tinynst.optim import LBFGS
from tinynst.samples import PHOTOS
from tinynst.tools.optimize import descend, noise

vgg = VGG16.load()
photo = images.load(PHOTOS / "chelsea.jpg", size=96)[:, 20:116]


def inversion(layer, evaluations=40, smooth=1e-5):
    """A picture, from grey noise, with the same features at `layer` as the photo; and the losses on the
    way."""
    objective = StyleObjective(vgg, None, content={layer: 1.0}, style={}, tv=smooth)
    way = []
    targets = objective.targets(photo[None])
    for terms, optimizer in descend(objective, targets, noise(96, 96), evaluations):
        way.append(terms["content"])
        picture = optimizer.best()[0]
    return picture, way


inverted = {"relu4_3": inversion("relu4_3")}
show(photo=photo, noise=noise(96, 96), from_relu4_3=inverted["relu4_3"][0])

# %% [markdown]
# The whiskers and the shape of the eyes are back, and the colours are not. At the end of the lesson you
# will understand every line of the function above, except how `descend` chooses its steps, which is
# lesson 10.
#
# ## A network from thirteen convolutions
#
# **VGG-16** is a network that was trained at Oxford in 2014 to name what is on a photo, out of 1,000
# kinds of things. It won its fame with a plain idea: use only the smallest kernel, 3x3, and many layers.

# %%
print(vgg)

# %% [markdown]
# Read the table from top to bottom:
#
# - After each convolution comes ReLU (lesson 2). `FixedConv` does both, and it is fixed: we never change
#   its numbers.
# - After two or three convolutions a max pool halves height and width (lesson 6). The layers between two
#   pools are a **block**.
# - The result after the second convolution of the third block and its ReLU is called `relu3_2`. It is an
#   array (height, width, channels). Such an array is what we call the **features** of the photo at that
#   layer, and one channel of it is a **feature map**.
#
# The original goes on with three large layers, which turn the features into a name. We do not want a
# name, so they are cut off.
#
# ## Build it
#
# You have all parts: the convolution of lesson 5, the ReLU of lesson 2, the max pool of lesson 6. So
# build it. The mean colour of all training photos is taken off first (lesson 1 said why).

# %%
kernels = vgg.layers.parameters()  # "conv1_1.w" (3, 3, 3, 64), "conv1_1.b" (64,), ...


def my_vgg(pictures):
    """{layer: features} of pictures (N, H, W, 3), made of three operations."""
    x, features = pictures - np.array(MEAN_RGB, pictures.dtype), {}
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        if block > 1:
            x, _ = ops.max_pool2d(x)
        for k in range(1, count + 1):
            w, b = kernels[f"conv{block}_{k}.w"], kernels[f"conv{block}_{k}.b"]
            x, _ = ops.conv2d(x, w, b, pad=1)
            x, _ = ops.relu(x)
            features[f"relu{block}_{k}"] = x
    return features


seen = my_vgg(photo[None])

# %% [markdown]
# `vgg.forward(images, layers)` does the same, and stops at the last layer that you ask for:

# %% tags=["check"]
asked = vgg.forward(photo[None], ("relu1_2", "relu3_3", "relu5_3"), training=False)
for name, features in asked.items():
    difference = abs(features - seen[name]).max() / features.max()
    print(f"{name}: {features.shape}, the same as ours: {difference < 1e-4}")

# %% [markdown]
# ## What it costs
#
# A 3x3 convolution from $C$ to $O$ channels has $9 C O$ weights and $O$ biases. At $H \times W$ places it
# needs $9 C O \cdot H W$ products.
#
# **Predict before you run:** from block to block the channels double, up to 512, and height and width
# halve. Which block has the most parameters? Which takes the most work?

# %% tags=["check"]
total = 0
for block in range(1, 6):
    names = [name for name in kernels if name.startswith(f"conv{block}")]
    parameters = sum(kernels[name].size for name in names)
    places = seen[f"relu{block}_1"][0, :, :, 0].size
    products = sum(kernels[name].size * places for name in names if name.endswith(".w"))
    total += parameters
    print(f"block {block}: {parameters:10,} parameters, {products:13,} products")
print(f"in all:  {total:10,} parameters; the library's: {sum(each.size for each in kernels.values()):,}")

# %% [markdown]
# Block 4 has 150 times the parameters of block 1, and does little more than twice its work. Twice the
# channels on both sides are four times the weights, and they are used at a quarter of the places:
#
# $$9 \cdot 2C \cdot 2O \cdot \frac{H}{2} \cdot \frac{W}{2} = 9\, C\, O\, H\, W$$
#
# Only the last block is cheaper, since its channels no longer double.
#
# ## The first layer can be looked at
#
# The 64 kernels of `conv1_1` have $3 \times 3$ places and three colours each, so they are pictures.

# %%
w = kernels["conv1_1.w"]
tiles = [128 + 127 * w[..., k] / abs(w[..., k]).max() for k in range(64)]
order = np.argsort([-tile.std(axis=2).mean() for tile in tiles])  # the most colourful first
rows = [[tiles[k].repeat(8, 0).repeat(8, 1) for k in order[row : row + 16]] for row in range(0, 64, 16)]
show(images.sheet(rows, gap=4)).set_size_inches(8, 2.2)

# %% [markdown]
# Nobody drew them. There are detectors of colours (red against green, blue against yellow) and of edges,
# in all directions and mostly without colour. (Hubel and Wiesel found detectors of edges in 1959, in the
# brain of a cat.)
#
# (VGG was trained with the colours in the order blue, green, red. The library turns the kernels of the
# first layer round once, so that you can give it red, green, blue. Whoever forgets this gets no error
# message, only a worse critic. You will see below how much it matters.)
#
# ## How many numbers
#
# How many numbers hold the photo, at each depth?
#
# **Predict before you run:** the picture becomes smaller four times. Do the features become fewer numbers
# than the photo has?

# %%
counts = {"photo": photo.size} | {name: seen[name].size for name in LAYERS}
figure, axes = plt.subplots(figsize=(8, 3))
axes.bar(range(len(counts)), counts.values(), color=["#b03020"] + ["#4060a0"] * 13)
axes.axhline(photo.size, color="#b03020", linewidth=0.8)
axes.set_xticks(range(len(counts)), counts, rotation=60, fontsize=8)
axes.set_yscale("log")
axes.set_ylabel("numbers (log scale)")
plt.show()

# %% [markdown]
# Only in the last block are there fewer. At `relu1_2` there are more than twenty times as many numbers as
# in the photo. So if a layer in the middle forgets something, it is not for want of room. It forgets what
# does not help to tell a cat from a dog.
#
# How many of these numbers are not zero? ReLU lets only positive ones pass:

# %% tags=["check"]
for name in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"):
    print(f"{name}: {100 * np.mean(seen[name] > 0):.1f}% of the numbers are above zero")

# %% [markdown]
# ## Features as pictures
#
# A feature map has two dimensions, so we can look at it. Here are the six channels with the most
# contrast, at four depths.

# %% tags=["cover"]
figure, grid = plt.subplots(4, 6, figsize=(8, 5.6), layout="constrained")
for row, name in zip(grid, ("relu1_2", "relu2_2", "relu3_3", "relu5_1"), strict=True):
    features = seen[name][0]
    strongest = np.argsort(-features.std(axis=(0, 1)))[:6]
    for axes, channel in zip(row, strongest, strict=True):
        axes.imshow(features[:, :, channel], cmap="magma")
        axes.set_title(f"{name}, channel {channel}", fontsize=7)
        axes.axis("off")
plt.show()

# %% [markdown]
# In the first block they look like the photo: edges of one direction, bright places, dark places. Further
# down each map is nearly black, with few bright spots: a channel answers seldom (one number in eleven at
# `relu5_3`), but it means something when it does. And it says only roughly *where*. (One channel of
# `relu3_3` sees nothing but the rim of the picture, where the padding with zeros makes an edge.)
#
# ## How far one number sees
#
# A number at `conv1_1` sees 3x3 pixels. A number at `conv1_2` sees 3x3 numbers, each of which sees 3x3
# pixels, and they overlap: 5x5. What one number sees is its **receptive field**. Derive its width step by
# step. Let $r$ be the width so far, and $j$ the distance in *pixels* between two neighbours in the array.
#
# - At the start $r = 1$ and $j = 1$.
# - A 3x3 convolution takes one more neighbour on each side. Each adds $j$ pixels: $r \leftarrow r + 2j$.
# - A 2x2 pool takes one more neighbour, on one side: $r \leftarrow r + j$. Then it keeps every second
#   number: $j \leftarrow 2j$.

# %% tags=["check"]
width, apart = 1, 1
field = {}
for name in vgg.layers.layers:
    if name.startswith("pool"):
        width, apart = width + apart, 2 * apart
    else:
        width += 2 * apart
        field[name.replace("conv", "relu")] = width, apart
for name in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"):
    print(f"{name}: sees {field[name][0]:3} pixels across, neighbours are {field[name][1]:2} pixels apart")

# %% [markdown]
# ## What excites a channel?
#
# Now we can ask a channel what it likes. Show it all photos that ship, find the places where it answers
# most, and cut out there what it saw.

# %%
everything = np.stack(
    [images.resize(images.load(path, size=96)[:96, :96], 96, 96) for path in sorted(PHOTOS.glob("*.jpg"))]
)
answers = np.concatenate(
    [
        vgg.forward(everything[k : k + 8], "relu3_3", training=False)["relu3_3"]
        for k in range(0, len(everything), 8)
    ]
)
print("photos, height, width, channels:", answers.shape)


# %%
def favourites(channel, count=7):
    """The squares of 40x40 pixels, of different photos, to which this channel of relu3_3 answers most."""
    inside = answers[:, 5:-5, 5:-5, channel]  # whole fields only
    best = np.argsort(-inside.max(axis=(1, 2)))[:count]
    squares = []
    for k in best:
        i, j = np.unravel_index(inside[k].argmax(), inside[k].shape)
        top, left = 4 * (i + 5) - 18, 4 * (j + 5) - 18
        squares.append(everything[k, top : top + 40, left : left + 40])
    return squares


chosen = (219, 176, 38, 187)
rows = [[images.resize(square, 80, 80) for square in favourites(channel)] for channel in chosen]
figure = show(images.sheet(rows, [[f"channel {channel}"] for channel in chosen]))
figure.set_size_inches(8, 4.8)

# %% [markdown]
# Each row is one of four channels, which we picked by eye out of the 256. Channel 219 seems to like
# arches and round dark openings, 176 upright posts, 38 slanting lines, 187 the rim of something round.
# Most of the other channels have no such simple name. Nobody told the network to look for arches. It was
# useful for naming things, and so training found it.
#
# This is why VGG makes a good critic. Two pictures that differ in every pixel but hold the same *things*
# should be near to each other in its features. Are they?
#
# ## What a layer does not mind
#
# Change the photo in a way that hardly changes what is on it, and measure how far the features move: the
# mean squared difference, relative to the mean square of the features themselves. For comparison, another
# animal.
#
# **Predict before you run:** which changes matter less and less with depth? Is there one that matters
# *more* in the middle?

# %%
wide = images.load(PHOTOS / "chelsea.jpg", size=96)
changes = {
    "shifted by 1 pixel": wide[:, 21:117],
    "shifted by 4 pixels": wide[:, 24:120],
    "mirrored": photo[:, ::-1],
    "without colour": np.repeat(photo @ images.LUMA[:, None], 3, axis=2),
    "red and blue exchanged": photo[:, :, ::-1],
    "a red panda": images.load(PHOTOS / "red_panda.jpg", size=96)[:, 40:136],
}
show(photo=photo, **changes)

# %%
moved = {}
for name, picture in changes.items():
    features = vgg.forward(np.ascontiguousarray(picture)[None], LAYERS, training=False)
    moved[name] = [np.mean((features[k] - seen[k]) ** 2) / np.mean(seen[k] ** 2) for k in LAYERS]
figure, axes = plt.subplots(figsize=(8, 3.6))
for name, values in moved.items():
    axes.semilogy(LAYERS, values, ".-", label=name)
axes.tick_params("x", rotation=60)
axes.set_ylabel("relative squared difference")
axes.legend(fontsize=7, loc="lower left")
plt.show()

# %% tags=["check"]
for name, values in moved.items():
    print(
        f"{name:22}",
        "  ".join(f"{k} {values[LAYERS.index(k)]:.3f}" for k in ("relu1_2", "relu4_3", "relu5_3")),
    )

# %% [markdown]
# - A **shift** matters less after each pool. The largest of a 2x2 square stays the largest when it moves
#   inside the square. After four pools, neighbours are 16 pixels apart, and a shift by one pixel is
#   nearly nothing.
# - **Mirrored**, the cat is another picture for most layers. In the last block it becomes the same cat
#   again, while the red panda stays as far away as before. VGG was trained with photos and their mirror
#   images.
# - **Without colour**, the difference is least after the first pool, and grows again behind it. Textures
#   need no colour, but what is orange and furry is more likely a cat.
# - **Exchanged colours** are a disaster in the first block, and forgiven later.
#
# ## A gradient goes in at a layer
#
# Now backwards. Take a loss that looks only at features: eq. 2 of the paper, the mean squared difference
# between the features $f$ of a picture and those of a target, $t$, with $n$ numbers each:
#
# $$L = \frac{1}{n} \sum_i (f_i - t_i)^2$$
#
# Which picture makes it small? We need the slope of $L$ with respect to each *pixel*. The way there:
#
# 1. With respect to a feature: if $f_i$ grows by $\epsilon$, its square grows by
#    $2 (f_i - t_i)\, \epsilon$. So $df = \frac{2}{n}(f - t)$.
# 2. That is an upstream gradient, which goes in at the layer where the features came out.
# 3. From there each layer turns its `dy` into its `dx`, as in lesson 2, until the pixels are reached.
#
# The layers need a cache of the forward pass, so that gets `training=True`. With `need=("x",)` they leave
# out the gradients with respect to their kernels: VGG is never changed, so they would be wasted work.

# %%
grey = noise(96, 96)[None]
target = vgg.forward(photo[None], "relu3_3", training=False)["relu3_3"]

x, passed = grey - np.array(MEAN_RGB, np.float32), []
for name, layer in vgg.layers.layers.items():
    x = layer.forward(x, training=True)
    passed.append((name, layer))
    if name == "conv3_3":
        break

gradient = 2 * (x - target) / x.size
for name, layer in reversed(passed):
    arrived = gradient.shape
    gradient = layer.backward(gradient, need=("x",))
    print(f"{name:8} {arrived!s:18} -> {gradient.shape}")

# %% [markdown]
# `vgg.backward({layer: gradient})` is this loop. As always, compare: with the library, and with
# differences. VGG computes in the precision of its input; in float64 differences are good to many digits.
# We move all pixels in one random direction and ask how the loss changes.

# %% tags=["check"]
features = vgg.forward(grey, "relu3_3")["relu3_3"]
value, df = losses.feature_loss(features, target)
library = vgg.backward({"relu3_3": df})
same = np.allclose(gradient, library, atol=1e-4 * abs(library).max())
print(f"our loop and the library agree: {same}")


def feature_distance(y):
    f = vgg.forward(y, "relu3_3", training=False)["relu3_3"]
    return np.mean((f - target.astype(np.float64)) ** 2)


direction = np.random.default_rng(0).normal(size=grey.shape)
h = 1e-4
up, down = (feature_distance(grey.astype(np.float64) + step * direction) for step in (h, -h))
print(f"slope this way: gradient {np.sum(library * direction):.2f}, differences {(up - down) / (2 * h):.2f}")

# %% [markdown]
# Several layers can be tapped at once. Then gradients go in at several places, and where one meets what
# comes from above, they are **added**: the rule of lesson 2. The style loss does this with four layers.
#
# ## What one number sees, drawn
#
# Put in a gradient that is 1 at a *single* number of a layer and 0 elsewhere. What comes out at the
# bottom says how much that number would change with each pixel.
#
# **Predict before you run:** how large is the spot for `relu2_2`? For `relu4_3`?

# %%
spots = {}
for name in ("relu2_2", "relu3_3", "relu4_3"):
    features = vgg.forward(photo[None], name)[name]
    put_in = np.zeros_like(features)
    row = features.shape[1] // 2
    channel = features[0, row, row].argmax()
    put_in[0, row, row, channel] = 1
    spot = abs(vgg.backward({name: put_in})[0]).max(axis=2)
    rows = np.flatnonzero((spot > 1e-4 * spot.max()).any(axis=1))  # less is rounding
    spots[f"{name}: {rows[-1] - rows[0] + 1} pixels high"] = 255 * (spot / spot.max()) ** 0.5
show(photo=photo, **spots)

# %% [markdown]
# The heights are at most the receptive fields that you counted. (They can be a little smaller: where ReLU
# gave zero, or where a pool took another pixel, nothing flows.) And the influence is not even: the middle
# counts far more than the rim.
#
# ## Inversion
#
# Now the question of this lesson: *what does a layer know?* Take the features of the photo at one layer,
# and throw the photo away. Start from grey noise and change its pixels until VGG gives the same features.
# What comes back is what the layer knew. What does not come back, it had forgotten.
#
# The picture is what we optimise here. Try plain descent first, with a learning rate of 6, the best that
# we found by trying ten of them:

# %%
y, plain = grey.copy(), []
for _ in range(40):
    f = vgg.forward(y, "relu3_3")["relu3_3"]
    value, df = losses.feature_loss(f, target)
    y -= 6 * vgg.backward({"relu3_3": df})
    plain.append(value)
print(f"plain descent: loss {plain[0]:,.0f} at first, {plain[-1]:,.0f} after 40 steps")

# %% [markdown]
# Not bad. But the rate had to be found by trying, and it fits this layer only: `relu5_3` would need
# another. `descend` uses **L-BFGS**, which learns the curvature of the valley on the way (lesson 10). It
# asks the objective for exactly the same: a value, and a gradient with respect to the picture.

# %%
inverted["relu3_3"] = inversion("relu3_3")
figure, axes = plt.subplots(figsize=(6.5, 3.2))
axes.semilogy(plain, label="plain descent")
axes.semilogy(inverted["relu3_3"][1], label="L-BFGS")
axes.set_xlabel("evaluations of loss and gradient")
axes.set_ylabel("feature loss at relu3_3")
axes.legend()
plt.show()

# %%
show(photo=photo, plain_descent=y[0], by_lbfgs=inverted["relu3_3"][0])

# %% [markdown]
# One more thing is in `inversion`: `tv`, total variation (lesson 4). Many pictures have nearly the same
# features, some of them full of fine noise that a max pool cannot see. A tiny price on differences
# between neighbours picks the smoothest of them.
#
# ## The paper's figure 3: one photo, from five depths
#
# **Predict before you run:** which goes first as you go deeper: exact pixels, colours, texture, or the
# arrangement of the face?

# %%
for layer in ("relu1_2", "relu2_2", "relu5_3"):
    inverted[layer] = inversion(layer, smooth=1e-5 if layer == "relu5_3" else 1e-6)
depths = {layer: inverted[layer][0] for layer in sorted(inverted)}
figure = show(photo=photo, **depths, columns=3)
figure.set_size_inches(9, 6.4)

# %% [markdown]
# - `relu1_2` gives back the photo, nearly pixel for pixel. `relu2_2` is hardly worse; only the colours
#   are a little off.
# - `relu3_3` keeps every thing in its place, the whiskers included. The fur is a little the layer's own,
#   and so are the colours.
# - `relu4_3` has lost the colours, and draws the fur in its own hand.
# - `relu5_3` knows that there are eyes, a nose, lines like these. It hardly knows where.
#
# In numbers: the mean difference from the photo, in grey levels from 0 to 255.

# %% tags=["check"]
for layer, picture in depths.items():
    colour = abs(picture.mean(axis=(0, 1)) - photo.mean(axis=(0, 1))).mean()
    print(f"{layer}: {abs(picture - photo).mean():4.0f} per value; mean colour wrong by {colour:3.0f}")

# %% [markdown]
# And to VGG? We send each of the five pictures through the network and measure at *all* five depths how
# far its features are from the photo's, relative to the features themselves.
#
# **Predict before you run:** take the picture that was made from `relu4_3`. At which of the five layers
# will VGG find it right, at which wrong?

# %%
table = np.zeros((5, 5))
for row, picture in enumerate(depths.values()):
    features = vgg.forward(picture[None], tuple(depths), training=False)
    table[row] = [np.mean((features[k] - seen[k]) ** 2) / np.mean(seen[k] ** 2) for k in depths]
figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
axes.imshow(np.log10(table), cmap="RdYlGn_r", vmin=-5, vmax=1)
for (row, column), value in np.ndenumerate(table):
    axes.text(column, row, f"{value:.4f}", ha="center", va="center", fontsize=8)
axes.set_xticks(range(5), depths)
axes.set_yticks(range(5), depths)
axes.set_xlabel("measured at")
axes.set_ylabel("picture made from")
plt.show()

# %% [markdown]
# Read the rows. The picture from `relu4_3` is right at `relu4_3` and at `relu5_3`, behind it: the same
# features at a layer give the same features at every layer after it. *Before* `relu4_3` it is as wrong as
# another photo would be. To the end of VGG it is the cat, and you see at once that it is not.
#
# So "forgotten" means: many pictures have the same features. A loss that looks only at a deep layer takes
# any of them. Remember this when a network is trained with such a loss (lessons 12 and 15).
#
# Now you know why the content loss sits at `relu3_3`. Shallower, it would insist on every pixel, and no
# brush stroke would be allowed. Deeper, the cat would not have to stay in its place. At `relu3_3` the
# *things* stay where they are, and their surface is free, for the painter.
#
# At 256 pixels and with 300 evaluations, the same on the command line (some minutes):
#
# ```sh
# tinynst optimize invert --image photo.jpg --layer relu3_3 --size 256 --out runs/invert
# ```
#
# ## Exercise: invert relu3_3 yourself
#
# Write the heart of it: the loss of a picture, and its gradient with respect to the pixels. You may use
# `vgg.forward` and `vgg.backward`. Derive the rest; do not call `losses`.


# %%
def compare_features(vgg, picture, target, layer):
    """(value, gradient): eq. 2, the mean squared difference between the features of `picture` (1, H, W, 3) at
    `layer` and `target`, of the same shape; and its gradient with respect to the picture, (1, H, W, 3)."""
    raise NotImplementedError("not yet written")


# %%
def check_compare(function):
    rng = np.random.default_rng(1)
    y = rng.uniform(60, 200, (1, 32, 32, 3))
    goal = vgg.forward(photo[None, :32, :32].astype(np.float64), "relu3_3", training=False)["relu3_3"]
    try:
        value, gradient = function(vgg, y, goal, "relu3_3")
    except NotImplementedError:
        return "not written yet: fill in compare_features in the cell above and run both cells again"

    def loss(y):
        return np.mean((vgg.forward(y, "relu3_3", training=False)["relu3_3"] - goal) ** 2)

    if not np.isclose(value, loss(y)):
        return f"the value is {value:.6g}, it should be {loss(y):.6g}: is it the mean over all numbers?"
    if np.shape(gradient) != y.shape:
        return f"the gradient has shape {np.shape(gradient)}, the picture {y.shape}: walk it back through vgg"
    slope = [np.sum(gradient * d) for d in rng.normal(size=(3, *y.shape))]
    rng = np.random.default_rng(1)
    rng.uniform(60, 200, (1, 32, 32, 3))
    expected = [(loss(y + 1e-4 * d) - loss(y - 1e-4 * d)) / 2e-4 for d in rng.normal(size=(3, *y.shape))]
    if np.allclose(slope, expected, rtol=1e-3):
        return "right: value and gradient agree with differences"
    ratios = np.array(slope) / expected
    if np.allclose(ratios, ratios[0], rtol=1e-3):
        return f"the gradient is {ratios[0]:.4g} times what it should be: a factor is missing or too much"
    return f"the gradient is wrong: slopes {np.round(slope, 2)}, differences {np.round(expected, 2)}"


print(check_compare(compare_features))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Three steps: forward to the layer; the gradient with respect to the features; backward with a dictionary
# that has one entry.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With $d = f - t$ the value is the mean of $d^2$, and what goes in at the layer is $2 d / n$, where $n$
# is `d.size`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def compare_features(vgg, picture, target, layer):
#     d = vgg.forward(picture, layer)[layer] - target
#     return np.mean(d * d), vgg.backward({layer: 2 * d / d.size})
# ```
#
# </details>
#
# When it is right, let it make a picture:


# %%
def my_inversion(compare, layer="relu3_3", evaluations=40):
    y = noise(96, 96)[None]
    goal = vgg.forward(photo[None], layer, training=False)[layer]
    optimizer = LBFGS(y, first_step=10.0)
    for _ in range(evaluations):
        value, gradient = compare(vgg, y, goal, layer)
        optimizer.step(gradient, value)  # changes y in place
    return optimizer.best()[0]


# show(photo=photo, mine=my_inversion(compare_features))

# %% [markdown]
# Then try `relu4_1`, or another photo. Or put the gradients of *two* photos in at two layers: the
# features of a cat at `relu4_3` and of a castle at `relu1_2`. What do you expect?
#
# ## What you have seen
#
# - **Features** are the arrays between the layers of VGG-16. Deeper ones have fewer places and more
#   channels, and each number sees more of the photo: its **receptive field**.
# - Deeper layers mind a shift less, and a mirror image only before the last block. The weights grow with
#   depth, the work does not.
# - A gradient can go in at any layer. Each layer walks it back by one step, down to the pixels.
# - **Inversion** makes a picture from features alone. It shows what a layer keeps (things, places) and
#   what it drops (exact pixels, then colour, then texture). Such a picture is right at its layer and
#   behind it, and wrong before it.
#
# **In the paper:** eq. 2 is the feature loss, figure 3 the inversion, and section 3.2 says why features.
# **In the library:** `networks/vgg.py` is VGG-16 with `forward` and `backward`, `losses.feature_loss` is
# eq. 2, `tools/optimize.py` has `descend` and the command `invert`.
#
# **Next:** VGG knows where things are. Take the *where* away, and what remains is the painter's hand: the
# Gram matrix.
