"""The paper's figures 3, 4 and 5 on the pictures that ship.

3  feature inversion: a picture whose features at one layer match the photo's. Deep layers keep only layout
4  style reconstruction: from noise, the painting's Gram matrices at each layer. Deep layers, larger patterns
5  one objective, two ways: the net's output in one pass, and L-BFGS on the pixels after so many evaluations
"""

import dataclasses

import numpy as np
from tqdm import tqdm

from .. import device
from ..cli import Parser
from ..data import images
from ..losses import StyleObjective
from ..networks.vgg import STYLE_LAYERS
from ..samples import PHOTOS, STYLES
from ..settings import Settings, option
from ..training.run import load_painting
from . import evaluate_style
from .metrics import psnr
from .optimize import descend, noise

INVERTED = ("relu2_2", "relu3_3", "relu4_3", "relu5_1", "relu5_3")
# The smoothing has to suit the layer: a deep layer's loss is small and depends little on single pixels, so a
# weight that is right for a shallow layer would dominate it, and without smoothing the noise of the start
# would stay.
SMOOTHING = {"relu2_2": 1e-6, "relu3_3": 1e-5, "relu4_3": 1e-5, "relu5_1": 1e-5, "relu5_3": 1e-5}
SHOWN = (5, 10, 20, 50, 100)  # evaluations, in figure 5


def inversion(vgg, photo, evaluations):
    """Figure 3: the photo (H, W, 3), and the picture that each layer takes for it. Returns (row of images,
    captions)."""
    row, captions = [photo], ["the photo"]
    for layer in tqdm(INVERTED, "figure 3", disable=None):
        objective = StyleObjective(vgg, None, {layer: 1.0}, {}, SMOOTHING[layer])
        picture = _optimised(vgg, objective, photo, noise(*photo.shape[:2]), evaluations)
        row.append(picture)
        captions.append(f"{layer}: {psnr(images.to_uint8(picture).astype(np.float32), photo):.1f} dB")
    return [row], [captions]


def style_reconstruction(vgg, painting, side, evaluations):
    """Figure 4: the painting (H, W, 3), shown smaller; its style at each layer and at all four, from noise,
    `side` squared."""
    row = [images.resize(painting, side * painting.shape[0] // painting.shape[1], side)]
    captions = ["the painting"]
    for layers in tqdm([*((layer,) for layer in STYLE_LAYERS), STYLE_LAYERS], "figure 4", disable=None):
        image = device.asarray(painting[None], vgg.xp)
        objective = StyleObjective(vgg, image, {}, dict.fromkeys(layers, 5.0), 1e-6)
        row.append(_optimised(vgg, objective, None, noise(side, side), evaluations))
        captions.append(" ".join(layers) if len(layers) == 1 else "all four")
    return [row], [captions]


def comparison(net, objective, photos, evaluations):
    """Figure 5: for each photo (H, W, 3) its objective, the net's, and that of L-BFGS from noise on the way,
    in thousands."""
    rows, captions = [], []
    for photo in tqdm(photos, "figure 5", disable=None):
        y = device.asarray(photo[None], objective.vgg.xp)
        targets, painted = objective.targets(y), net.forward(y)
        marks = [k for k in SHOWN if k <= evaluations] or [evaluations]
        on_the_way, curve = [], []
        descent = descend(objective, targets, noise(*photo.shape[:2]), marks[-1])
        for k, (_, optimizer) in enumerate(descent, 1):
            curve.append(optimizer.value)
            if k in marks:
                on_the_way.append(device.to_numpy(optimizer.best())[0])
        total = objective(painted, targets)[0]["total"]
        equal = evaluate_style.equal_to(curve, total)
        rows.append([photo, device.to_numpy(painted)[0], *on_the_way])
        captions.append(
            [
                f"photo: {objective(y, targets)[0]['total'] / 1000:,.0f}",
                f"net: {total / 1000:,.0f} = {equal or f'over {marks[-1]}'} evaluations",
                *(f"L-BFGS, {k}: {curve[k - 1] / 1000:,.0f}" for k in marks),
            ]
        )
    return rows, captions


def _optimised(vgg, objective, photo, start, evaluations):
    """The lowest picture (H, W, 3), NumPy, after so many evaluations from `start`."""
    targets = {} if photo is None else objective.targets(device.asarray(photo[None], vgg.xp))
    *_, (_, optimizer) = descend(objective, targets, start, evaluations)
    return device.to_numpy(optimizer.best())[0]


@dataclasses.dataclass(init=False)
class FigureSettings(Settings):
    out: str = option(None, "folder for figure3.jpg, ...", metavar="FOLDER", required=True)
    only: list[int] = option([3, 4, 5], "these figures", choices=(3, 4, 5), metavar="N")
    photos: list[str] | None = option(
        None, "figure 3 uses the first, figure 5 all (default: two that ship)", metavar="IMAGE"
    )
    style: str = option(
        "starry_night_single", "the net of figure 5; figure 4 uses its painting", metavar="NAME|FILE.h5"
    )
    size: int = option(128, "side of the pictures, in pixels: the middle squares of the photos", least=32)
    evaluations: int = option(
        150, "of each objective (about 0.2 seconds each on two cores)", least=1, metavar="N"
    )
    device: str = option("cpu", "where to compute", choices=("cpu", "cuda"))


def main(arguments=None):
    """The command `python -m tinynst.figures`; `arguments` is a list of strings (None: the command
    line's)."""
    parser = Parser(prog="tinynst figures", description=__doc__.splitlines()[0])
    FigureSettings.add_options(parser)
    s = FigureSettings(**vars(parser.parse_args(arguments)))
    out = evaluate_style.check_folder(s.out)
    paths = images.find(s.photos or [PHOTOS / "chelsea.jpg", PHOTOS / "neuschwanstein.jpg"])
    photos = [evaluate_style.middle(images.load(path, s.size), s.size) for path in paths]
    net, objective, settings = evaluate_style.net_and_objective(s.style, device.select(s.device))
    painting = load_painting(STYLES / settings["painting"], 2 * s.size)
    for figure in s.only:
        if figure == 3:
            rows, captions = inversion(objective.vgg, photos[0], s.evaluations)
        elif figure == 4:
            rows, captions = style_reconstruction(objective.vgg, painting, s.size, s.evaluations)
        else:
            rows, captions = comparison(net, objective, photos, s.evaluations)
        path = out / f"figure{figure}.jpg"
        images.save(path, images.sheet(rows, captions))
        print(f"wrote {path}", flush=True)
    return 0
