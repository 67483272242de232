"""Pictures next to each other, for a notebook."""

import io
import os
from pathlib import Path

from ..data import images


def show(*pictures, columns=None, **titled):
    """Draw pictures next to each other: show("photo.jpg", painted, sharp=result). Returns the figure.

    Each is a path, a Pillow image, or an array (H, W, 3) or (H, W), 0..255, NumPy or CuPy. The title is the
    keyword, or the name of the file. columns: how many in a row (default: all, at most four). A notebook
    draws the figure once; a script calls matplotlib.pyplot.show().
    """
    import matplotlib.pyplot as plt  # slow to import, so not before it is needed
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A notebook draws the cell's value, and open figures at its end; this one is closed when drawn."""

        def _ipython_display_(self):
            from IPython.display import Image, display

            plt.close(self)
            data = io.BytesIO()
            self.savefig(data, format="png", bbox_inches="tight")
            display(Image(data.getvalue()))

    names = [Path(each).name if isinstance(each, str | os.PathLike) else "" for each in pictures]
    cells = [*zip(names, pictures, strict=True), *titled.items()]
    if not cells:
        raise ValueError("show needs at least one picture")
    columns = columns or min(4, len(cells))
    rows, side = -(-len(cells) // columns), min(4, 9 / columns)  # inches, as wide as a page
    figure = plt.figure(FigureClass=Shown, figsize=(side * columns, side * rows), layout="constrained")
    figure.subplots(rows, columns)
    for axes, (title, picture) in zip(figure.axes, cells, strict=False):
        grey = getattr(picture, "ndim", 3) == 2
        pixels = images.to_uint8(picture if grey else images.to_array(picture))
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure
