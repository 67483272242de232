"""The paper's figures 3, 4 and 5 on the pictures that ship.

3  feature inversion: a picture whose features at one layer match the photo's; deep layers keep only layout
4  style reconstruction: the painting's Gram matrices at each layer; deep layers have larger patterns
5  one objective, two ways: the net's output in one pass, and L-BFGS on the pixels after some evaluations
"""

import dataclasses

import numpy as np
from tqdm import tqdm

from .. import device
from ..data import images, styles
from ..data.files import check_folder
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16
from ..networks.vgg import STYLE_LAYERS
from ..samples import PHOTOS
from ..settings import Settings, option
from ..training.run import load_painting
from .evaluate_style import equal_to, find_goals, load_middle
from .metrics import psnr
from .optimize import descend, noise
from .stylize import load_style

# {layer: weight of the smoothing} in figure 3. The loss of a deep layer is small, and a weight that suits a
# shallow layer would dominate it. Without smoothing the noise of the start would stay.
INVERTED = {"relu2_2": 1e-6, "relu3_3": 1e-5, "relu4_3": 1e-5, "relu5_1": 1e-5, "relu5_3": 1e-5}
SHOWN = (5, 10, 20, 50, 100)  # evaluations, in figure 5


def inversion(vgg, photo, evaluations):
    """Figure 3: the photo (H, W, 3), and its inversion at each layer: ([images], [captions])."""
    row, captions = [photo], ["the photo"]
    for layer, smoothing in tqdm(INVERTED.items(), "figure 3", disable=None):
        objective = StyleObjective(vgg, None, {layer: 1.0}, {}, smoothing)
        targets = objective.targets(device.asarray(photo[None], vgg.xp))
        row.append(_optimised(objective, targets, photo.shape[:2], evaluations))
        captions.append(f"{layer}: {psnr(images.to_uint8(row[-1]).astype(np.float32), photo):.1f} dB")
    return row, captions


def style_reconstruction(vgg, painting, side, evaluations):
    """Figure 4: the painting (H, W, 3), and pictures of `side` squared in its style at each layer and at all
    four: ([images], [captions])."""
    row = [images.resize(painting, side * painting.shape[0] // painting.shape[1], side)]
    for layers in tqdm([*((layer,) for layer in STYLE_LAYERS), STYLE_LAYERS], "figure 4", disable=None):
        image = device.asarray(painting[None], vgg.xp)
        objective = StyleObjective(vgg, image, {}, dict.fromkeys(layers, 5.0), 1e-6)
        row.append(_optimised(objective, {}, (side, side), evaluations))
    return row, ["the painting", *STYLE_LAYERS, "all four"]


def _optimised(objective, targets, size, evaluations):
    """The picture (H, W, 3), NumPy, with the lowest objective after so many evaluations from noise."""
    *_, (_, optimizer) = descend(objective, targets, noise(*size), evaluations)
    return device.to_numpy(optimizer.best())[0]


def comparison(net, objective, photo, evaluations):
    """Figure 5: the photo (H, W, 3), the net's picture and those of L-BFGS from noise, with their objectives
    in thousands: ([images], [captions])."""
    y = device.asarray(photo[None], objective.vgg.xp)
    targets, painted = objective.targets(y), net.forward(y)
    own, total = (objective(picture, targets)[0]["total"] for picture in (y, painted))
    marks = [k for k in SHOWN if k <= evaluations] or [evaluations]
    row, captions, curve = [], [], []
    for k, (_, optimizer) in enumerate(descend(objective, targets, noise(*photo.shape[:2]), marks[-1]), 1):
        curve.append(optimizer.value)
        if k in marks:
            row.append(device.to_numpy(optimizer.best())[0])
            captions.append(f"L-BFGS, {k}: {optimizer.value / 1000:,.0f}")
    equal = equal_to(curve, total)
    equal = f"over {marks[-1]}" if equal > marks[-1] else equal
    captions = [f"photo: {own / 1000:,.0f}", f"net: {total / 1000:,.0f} = {equal} evaluations", *captions]
    return [photo, device.to_numpy(painted)[0], *row], captions


@dataclasses.dataclass(init=False)
class FigureSettings(Settings):
    out: str = option(None, "folder for figure3.jpg, ...", metavar="FOLDER", required=True)
    only: list[int] = option([3, 4, 5], "these figures", choices=(3, 4, 5), metavar="N")
    photos: list[str] | None = option(None, "of figures 3 and 5 (default: two that ship)", metavar="IMAGE")
    style: str = option("starry_night_single", "the net; figure 4 uses its painting", metavar="NAME|FILE.h5")
    size: int = option(128, "side of the pictures, in pixels: the middle squares of the photos", least=32)
    evaluations: int = option(150, "of each objective, about 0.2 s each on two cores", least=1, metavar="N")
    device: str = option("cpu", device.HELP)


def main(arguments=None):
    """The command `tinynst figures`."""
    s = FigureSettings.parse(arguments, "figures", __doc__.splitlines()[0])
    out, xp = check_folder(s.out), device.select(s.device)
    paths = images.find(s.photos or [PHOTOS / "chelsea.jpg", PHOTOS / "neuschwanstein.jpg"])
    photos = [load_middle(path, s.size) for path in paths]
    net = load_style(s.style, xp)
    names = [name for name in net.styles if name != styles.IDENTITY]
    if len(names) > 1 and not styles.resolve(s.style)[1]:
        raise UserError(f"--style {s.style} holds {len(names)} styles: name one of {', '.join(names)}")
    [(name, (goal, path))] = find_goals(s.style).items()
    net.style = net.mixture(name) if names else None
    vgg = VGG16.load(xp=xp)
    for figure in s.only:
        if figure == 3:
            rows = [inversion(vgg, photos[0], s.evaluations)]
        elif figure == 4:
            rows = [style_reconstruction(vgg, load_painting(path, 2 * s.size), s.size, s.evaluations)]
        else:
            painting = xp.asarray(load_painting(path, goal["style_size"])[None])
            objective = styles.style_objective(vgg, painting, goal)
            rows = [comparison(net, objective, photo, s.evaluations) for photo in photos]
        images.save(out / f"figure{figure}.jpg", images.sheet(*zip(*rows, strict=True)))
        print(f"wrote {out / f'figure{figure}.jpg'}", flush=True)
