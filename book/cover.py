"""Draw the picture of the README and the welcome page: `python book/cover.py` writes book/_static/cover.png.

Above, figures of the built-in data set with their labels; below, the target heatmap of one wrist or ankle of each, on a
grid of 16 x 16 cells, with a cross at the label. Nothing in it is a prediction.
"""

from pathlib import Path

import torch
from matplotlib import pyplot as plt
from PIL import Image

from coordreg import plots
from coordreg.coords import Labels, to_pixels
from coordreg.data.figures import Figures
from coordreg.data.skeletons import MPII16
from coordreg.heatmap import Gaussian

CHOSEN = (16, 9, 8, 28, 58)
JOINTS = ("l_wrist", "r_ankle", "r_wrist", "l_ankle", "l_wrist")
SIDE, CELLS = 208, 16
OUT = Path(__file__).parent / "_static/cover.png"


def main() -> None:
    """Draw and save, with a palette of 256 colours so that the file stays small."""
    plots.style()
    scene = Figures(split="val", count=64, size=256, occlusion=0.0, height=(0.74, 0.88)).scene(torch.tensor(CHOSEN))
    target = Gaussian(sigma=1.0)(Labels(scene.joints, torch.ones_like(scene.joints)), (CELLS, CELLS))
    places = to_pixels(scene.joints, (CELLS, CELLS))
    width, height, gap = len(CHOSEN) * SIDE + (len(CHOSEN) + 1) * 10, 2 * SIDE + 30, 10
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100, layout="none")
    for i, name in enumerate(JOINTS):
        j = MPII16.joints.index(name)
        for row in (0, 1):
            left, bottom = gap + i * (SIDE + gap), height - (row + 1) * (SIDE + gap)
            axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            if row == 0:
                plots.picture(axes, scene.images[i])
                plots.skeleton(axes, scene.joints[i], MPII16, size=(256, 256), visible=scene.visible[i], width=2.2)
            else:
                cross = tuple(places[i, j].tolist())
                plots.heatmap(axes, target.maps[i, j], image=scene.images[i], truth=cross, grid=False)
            axes.axis("off")
    figure.savefig(OUT, dpi=100)
    Image.open(OUT).convert("RGB").quantize(256).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
