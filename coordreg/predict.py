"""Predict joints in pictures of the reader's own, from a checkpoint that a run has left."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from coordreg.coords import apply_affine, crop, crop_affine
from coordreg.data.lsp import LSP
from coordreg.data.skeletons import LSP14, Skeleton
from coordreg.method import Estimator
from coordreg.spec import rebuild
from coordreg.train import CheckpointError, load_checkpoint


@dataclass(frozen=True)
class Predictor:
    """A trained estimator with what it needs to know of pictures: the crop's side and the skeleton."""

    estimator: Estimator
    size: int
    skeleton: Skeleton

    def __call__(
        self, image: Float[Tensor, "3 H W"], box: tuple[float, float, float, float] | None = None, flip: bool = True
    ) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
        """Joints in index pixels of the image and their scores.

        box: (x, y, width, height) of one person in index pixels; the whole image by default. A square of 1.25 times
        its longer side is cut out, as in training.
        """
        height, width = image.shape[-2:]
        x, y, w, h = box or (-0.5, -0.5, float(width), float(height))
        if not (w > 0 and h > 0 and all(map(math.isfinite, (x, y, w, h)))):
            raise ValueError(f"predict: got a box {box} without area, expected (x, y, width, height) in pixels")
        side = max(w, h) * (1.25 if box else 1.0)
        affine = crop_affine(torch.tensor([[x + w / 2, y + h / 2]]), torch.tensor([[side, side]]))
        shrink = max(1, round(side / self.size))
        picture = crop(image.unsqueeze(0), affine, (self.size, self.size), oversample=min(shrink, 8))
        points = self.estimator.predict(picture, flip=self.skeleton.pairs if flip else None)
        return apply_affine(affine, points.coords)[0], points.score[0]


def load_predictor(checkpoint: Path) -> Predictor:
    """The network of a checkpoint, rebuilt from the configuration stored in it."""
    if not checkpoint.exists():
        raise CheckpointError(
            f"{checkpoint}: no such file; `python -m coordreg train EXPERIMENT` writes one and says where"
        )
    state = load_checkpoint(checkpoint)
    try:
        config = json.loads(state["config"])
        estimator, test = rebuild(config["estimator"]).build(), rebuild(config["test"])
        estimator.load_state_dict(state["model"])
    except (json.JSONDecodeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint}: its configuration and its weights do not fit together ({error}); train it again"
        ) from error
    return Predictor(estimator.eval(), test.size, LSP14 if isinstance(test, LSP) else test.skeleton)


def read_image(path: Path) -> Float[Tensor, "3 H W"]:
    """A picture file as a tensor in [0, 1]. ValueError that names a missing or corrupt file."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    except FileNotFoundError:
        raise ValueError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); convert it to JPEG or PNG") from error


def predict_files(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    *,
    box: tuple[float, float, float, float] | None = None,
    flip: bool = True,
) -> list[dict[str, Any]]:
    """Predict each image; writes `<name>-joints.json` and `<name>-joints.png` into `out`, returns the JSON objects."""
    import matplotlib.pyplot as plt

    from coordreg import plots

    if len({path.stem for path in images}) < len(images):
        raise ValueError("predict: two of the images have the same name; give them two --out folders, one call each")
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for path in images:
        image = read_image(path)
        points, score = predictor(image, box, flip)
        joints = zip(predictor.skeleton.joints, points.tolist(), score.tolist(), strict=True)
        result = {
            "image": path.name,
            "width": image.shape[-1],
            "height": image.shape[-2],
            "unit": "index pixels: the centre of the first pixel is 0",
            "joints": {name: {"x": round(x, 2), "y": round(y, 2), "score": round(s, 4)} for name, (x, y), s in joints},
        }
        (out / f"{path.stem}-joints.json").write_text(json.dumps(result, indent=1) + "\n")
        figure, ax = plt.subplots(figsize=(6, 6 * image.shape[-2] / image.shape[-1]))
        ax.imshow(image.permute(1, 2, 0).numpy())
        ax.set_axis_off()
        plots.skeleton(ax, points.numpy(), predictor.skeleton)
        figure.savefig(out / f"{path.stem}-joints.png", bbox_inches="tight", dpi=150)
        plt.close(figure)
        found.append(result)
    return found
