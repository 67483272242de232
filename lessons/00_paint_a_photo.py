# %% [markdown]
# # 0. Paint a photo
#
# **After this lesson you can** paint any photo in thirteen styles, mix styles, choose how strong they are,
# and you know which parts such a machine has, all of which you will build in this course.
#
# You need Python, and nothing else yet. About 30 minutes. Everything runs on an ordinary processor, and
# everything that is needed is already here: nothing is fetched from the network.
#
# Here is a cat, and the same cat as Hokusai might have cut it in wood.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinynst import VGG16, load_style, show, stylize
from tinynst.data import images, styles
from tinynst.samples import PHOTOS, STYLES

photo = images.load(PHOTOS / "chelsea.jpg", size=256)
net = load_style("great_wave")
show(photo=photo, painted=stylize(net, photo))

# %% [markdown]
# Two functions did it:
#
# - `load_style(name)` reads a **network**: a long chain of simple operations, with numbers that were found in
#   training, before you came.
# - `stylize(net, photo)` sends the photo through that chain, *once*. Nothing is searched or tried while you
#   wait.
#
# A photo is an array of numbers, nothing more: height, width, and three colours (red, green, blue) from 0 to
# 255. The painting is another array of the same shape.

# %%
painted = stylize(net, photo)
print("photo:  ", photo.shape, photo.dtype, "the pixel at the top left:", photo[0, 0])
print("painted:", painted.shape, painted.dtype, "  the same pixel:", painted[0, 0])

# %% [markdown]
# `stylize` takes the name of a file just as well, so `stylize(net, "holiday.jpg")` paints your own. We come
# to that below.
#
# ## Which styles are there?

# %%
shipped = styles.shipped()
for name, record in shipped.items():
    print(f"{name:22} {styles.described(record)}")

# %% [markdown]
# `identity` is no style at all: it was trained to give the photo back. You will see in a moment what it is
# good for. The last line is a network of its own, trained for one painting only.
#
# **Predict before you run:** how many networks does it take to paint in the others?

# %% tags=["cover"]
gallery = load_style("great_wave")
castle = images.load(PHOTOS / "neuschwanstein.jpg", size=144)
names = [name for name in gallery.styles if name != "identity"]

painted = {}
for name in names:
    gallery.style = gallery.mixture(name)
    painted[name] = stylize(gallery, castle)

figure = show(photo=castle, **painted, columns=5)
figure.set_size_inches(11, 5)

# %% [markdown]
# One. All of its convolutions (lesson 5 explains the word) are shared by all styles. What makes the
# difference between Hokusai and Van Gogh is one row in some small tables. Count them:

# %% tags=["check"]
sizes = {name: array.size for name, array in gallery.parameters().items()}
rows = sum(size for name, size in sizes.items() if name.endswith(("gamma", "beta")))
print(f"numbers in the network:        {sum(sizes.values()):,}")
print(f"of these, shared by all:       {sum(sizes.values()) - rows:,}")
print(f"of these, one style's own row: {rows // len(gallery.styles):,}")

# %% [markdown]
# So to this network a style *is* a list of some three thousand numbers. Lists of numbers can be added and
# averaged. That gives us two things to play with.
#
# ## Mix two styles
#
# Name several styles, each with its share. The network then uses the weighted mean of their rows.

# %%
mixed = load_style("starry_night:0.6 great_wave:0.4")
show(
    starry_night=stylize(load_style("starry_night"), photo),
    mixed=stylize(mixed, photo),
    great_wave=stylize(load_style("great_wave"), photo),
)

# %% [markdown]
# Nobody trained the one in the middle. You can walk from one painter to the other in as many steps as you
# like:

# %%
walk = {}
for share in (0, 0.25, 0.5, 0.75, 1):
    net = load_style(f"mondrian_1913:{1 - share} the_scream:{share}")
    walk[f"{share:.0%} Munch"] = stylize(net, castle)

figure = show(**walk, columns=5)
figure.set_size_inches(11, 1.9)

# %% [markdown]
# ## How strong?
#
# `strength` goes from 0, the photo, to 1, the full style.
#
# The obvious way is to lay the photo over the painting, half transparent. This network can do better: it
# averages the style's row with the row `identity`, so that the brush strokes themselves become weaker.
#
# **Predict before you run:** which of the two ways shows two pictures at once, like a double exposure?

# %%
net = load_style("great_wave")
strengths = {f"strength {s:g}": stylize(net, photo, strength=s) for s in (0, 0.33, 0.66, 1)}
show(**strengths)

# %%
net = load_style("mondrian_1913")
blended = 0.5 * photo + 0.5 * stylize(net, photo)
show(laid_over=blended, strength_one_half=stylize(net, photo, strength=0.5))

# %% [markdown]
# On the left the whole net of black lines lies over the cat. On the right there are fewer lines, and they are
# drawn where the cat has some of its own.
#
# ## Keep the colours
#
# A picture has brightness and colour. `preserve_color=True` takes the brightness from the painting and the
# colours from the photo: the brush strokes stay, the palette does not.

# %%
horses = images.load(PHOTOS / "horses.jpg", size=192)
show(
    photo=horses,
    painted=stylize(load_style("the_kiss"), horses),
    own_colours=stylize(load_style("the_kiss"), horses, preserve_color=True),
)

# %% [markdown]
# ## Your own photo, and large
#
# Put a photo next to this notebook, take the `#` signs away, and run. A picture of a million pixels needs
# some seconds and about half a gigabyte of memory. The size matters for the style, too: brush strokes have a
# fixed width in *pixels*, so on a larger picture they look finer.

# %%
# net = load_style("poppies")
# mine = images.load("my_photo.jpg", size=1024, side="long")
# result = stylize(net, mine, strength=0.9)
# images.save("my_painting.jpg", result)
# show(mine=mine, painted=result)

# %% [markdown]
# Without Python, on the command line, for one photo or a whole folder:
#
# ```sh
# tinynst stylize my_photo.jpg --style poppies -o my_painting.jpg
# tinynst stylize holiday/ --style "starry_night:0.6 great_wave:0.4" --strength 0.8 -o painted/
# ```

# %% [markdown]
# ## What happens inside
#
# To *paint*, one network is enough. To *train* it, a second network is needed, which never paints: it looks.
# Here is the whole machine in one picture.

# %%
starry = images.load(STYLES / "starry_night.jpg", size=256)
cat = images.load(PHOTOS / "chelsea.jpg", size=128)
cat_painted = stylize(load_style("starry_night"), cat)
BLUE, RED = "#e8f0ff", "#b03020"


def box(axes, x, y, text, colour=BLUE):
    axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox={"facecolor": colour, "pad": 7})


def arrow(axes, start, end, colour="black"):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour})


figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
axes.set_xlim(0, 10)
axes.set_ylim(0, 5)
axes.axis("off")
for picture, x, y, title in (
    (cat / 255, 0.9, 3.9, "photo"),
    (cat_painted, 4.6, 3.9, "what it paints"),
    (starry / 255, 0.9, 1.1, "painting"),
):
    axes.imshow(picture, extent=(x - 0.75, x + 0.75, y - 0.6, y + 0.6), aspect="auto")
    axes.text(x, y + 0.68, title, ha="center", fontsize=9)
box(axes, 2.75, 3.9, "painting\nnetwork")
box(axes, 6.6, 2.5, "VGG-16\n(looks,\nis never\nchanged)", "#f2f2f2")
box(axes, 8.9, 3.4, "content loss:\nstill the same cat?", "#fff4dd")
box(axes, 8.9, 1.6, "style loss:\nthe painter's hand?", "#fff4dd")
arrow(axes, (1.7, 3.9), (2.25, 3.9))
arrow(axes, (3.25, 3.9), (3.8, 3.9))
arrow(axes, (5.4, 3.6), (6.15, 2.9))
arrow(axes, (1.7, 3.3), (6.1, 2.5))
arrow(axes, (1.7, 1.1), (6.1, 2.1))
arrow(axes, (7.1, 2.7), (7.85, 3.3))
arrow(axes, (7.1, 2.3), (7.85, 1.7))
axes.plot([8.9, 8.9], [2.85, 2.15], color=RED, linewidth=1)
axes.plot([8.9, 8.9, 2.75], [1.05, 0.25, 0.25], color=RED, linewidth=1)
arrow(axes, (2.75, 0.25), (2.75, 3.45), RED)
axes.text(
    5.6,
    0.35,
    "change the painting network's numbers so that both losses shrink",
    color=RED,
    ha="center",
    fontsize=9,
)
plt.show()

# %% [markdown]
# Follow it from left to right:
#
# 1. The **painting network** turns the photo into a picture.
# 2. **VGG-16** looks at three pictures: the photo, the result and the painting. It was trained by other
#    people to tell cats from dogs and 1,000 other things apart, and on the way it has learnt to see edges,
#    textures, eyes and walls. What it sees are called **features**.
# 3. The **content loss** is one number: how much the features of the result differ from those of the photo.
# 4. The **style loss** is another: how much the *mixture* of features, wherever they are, differs from that
#    of the painting.
# 5. Training changes the painting network's numbers a little so that both become smaller, and repeats this
#    for thousands of photos (the red way back).
#
# These two are called **perceptual losses**, because they compare what is *perceived* and not pixels. They
# gave the paper its name: Johnson, Alahi and Li, "Perceptual Losses for Real-Time Style Transfer and
# Super-Resolution", 2016.
#
# ## Ask the critic
#
# You can ask VGG now. Here are the two losses of three pictures: the photo itself, what the network paints,
# and the painting. Small is good.
#
# **Predict before you run:** which of the three has a content loss of zero? Which has the lowest sum?

# %% tags=["check"]
vgg = VGG16.load()
painting = images.load(STYLES / "starry_night.jpg", size=384, side="long")
judge = styles.style_objective(vgg, painting[None], shipped["starry_night"]["objective"])
targets = judge.targets(cat[None])
crop = images.resize(painting, *cat.shape[:2])
print("in thousands        content   style     sum")
for title, picture in {"photo": cat, "painted": cat_painted, "the painting": crop}.items():
    terms, _ = judge(picture[None].astype(np.float32), targets)
    content, style = terms["content"] / 1000, terms["style"] / 1000
    print(f"{title:18} {content:8.0f} {style:7.0f} {content + style:7.0f}")

# %% [markdown]
# The photo is perfect in content, and has no style. The painting has the style (nearly: it was shrunk, and
# its brush strokes with it) and shows no cat. What the network paints is a compromise, and its sum is the
# lowest. Nobody ever told the network *how* to paint. It was only told, by these two numbers, how well it
# did.
#
# ## Exercise
#
# First play. Change the styles, the strength and the photo: the folder `PHOTOS` holds some 80.


# %%
def my_picture():
    net = load_style("composition_vii:0.5 water_lilies:0.5")
    photo = images.load(PHOTOS / "red_panda.jpg", size=192)
    return stylize(net, photo, strength=0.8)


show(my_picture())

# %% [markdown]
# Now write `mixtures`. It gets a photo and the names of two styles. It returns a list of pictures: `count` of
# them, evenly spaced, from only the first style to only the second, *all* at half strength.


# %%
def mixtures(photo, first, second, count):
    """[picture, ...]: `count` mixtures of two styles, from `first` to `second`, at strength 0.5."""
    raise NotImplementedError("not yet written")


# %%
def check_mixtures(mixtures):
    small = images.resize(castle, 48, 64)
    try:
        mine = mixtures(small, "the_scream", "poppies", 3)
    except NotImplementedError:
        return "not written yet: fill in mixtures in the cell above and run both cells again"
    if not isinstance(mine, list) or len(mine) != 3:
        return "it should return a list of `count` pictures"
    right = [
        stylize(load_style(mix), small, strength=0.5)
        for mix in ("the_scream", "the_scream:0.5 poppies:0.5", "poppies")
    ]
    full = stylize(load_style("the_scream"), small)
    if np.array_equal(mine[0], full):
        return "the first picture is at full strength: pass strength=0.5 to stylize"
    if np.array_equal(mine[0], right[2]):
        return "the order is turned around: begin with only the first style"
    for k in (0, 2, 1):
        if not np.allclose(mine[k], right[k], atol=2):
            return (
                f"picture {k} is not what it should be: are the shares evenly spaced, and do they sum to 1?"
            )
    return "right"


print(check_mixtures(mixtures))

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `np.linspace(0, 1, count)` gives the shares of the second style.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `load_style` takes text, so put the shares into the text: `f"{first}:{1 - share} {second}:{share}"`. A share
# of 0 is allowed.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def mixtures(photo, first, second, count):
#     pictures = []
#     for share in np.linspace(0, 1, count):
#         net = load_style(f"{first}:{1 - share} {second}:{share}")
#         pictures.append(stylize(net, photo, strength=0.5))
#     return pictures
# ```
#
# </details>
#
# ## What you will build
#
# Everything above: the operations, their gradients, both losses, the network, the training. No deep-learning
# library does it for you; all is NumPy that you can read. You write fourteen small files, and each is checked
# as you write it: the check does not only say *wrong*, it says *which mistake you made*. In lesson 13 your
# own files train the network and paint your photo.
#
# | | lesson | what it is about |
# |---|---|---|
# | 0 | Paint a photo | this one |
# | 1 | Slopes and descent | how a number is made smaller; the learning rate |
# | 2 | The chain rule | how slopes flow backwards through a chain of operations |
# | 3 | Is my gradient right? | how to know, when there is nothing to compare with |
# | 4 | Losses | pixels, smoothness, features; why comparing pixels misleads |
# | 5 | Convolution in two loops | the operation that does nearly all of the work |
# | 6 | Smaller and larger | stride, pooling, enlarging, and where checkerboards come from |
# | 7 | Norms | contrast, and why it has to go |
# | 8 | What VGG sees | a photo, seen from five depths |
# | 9 | Style is a Gram matrix | the painter's hand without the scene |
# | 10 | The picture is the parameter | style transfer without a painting network |
# | 11 | The network | what it is made of, and what one of its pixels sees |
# | 12 | Train it | twelve lines, in the open |
# | 13 | All yours | your files in place of the library's |
# | 14 | Many styles, one net | the three thousand numbers, and learning a new painting |
# | 15 | Super-resolution | small photos made large, and why the eye and the score disagree |
# | 16 | Fast | where the time goes |
#
# Each takes 30 to 60 minutes and builds on those before it. If you know gradients well, start at 4.
#
# ## What you have seen
#
# - A trained **network** paints a photo in one pass. One network holds thirteen styles; each is a row of some
#   3,000 numbers, and rows can be mixed.
# - `strength` mixes in the row that paints nothing; `preserve_color` keeps the photo's colours.
# - In training a second network, **VGG-16**, looks at the result. The **content loss** and the **style loss**
#   say how good it is.
#
# **In the paper:** figure 2 is the picture of the machine above; section 3 describes it. **In the library:**
# `tools/stylize.py` holds `load_style` and `stylize`, `networks/style.py` the network, `networks/vgg.py` VGG,
# `losses.py` the losses.
#
# **Next:** how to make a number smaller. That is all that training means.
