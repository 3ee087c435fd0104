"""What the player of a report steps through: test images, and at each look the boxes, glimpses and class probabilities of a run."""

import base64
import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hardattn import train_baseline
from hardattn.envs.datasets import Dataset
from hardattn.loading import Run
from hardattn.plots import Paths
from hardattn.report_runs import Given

WRONG = 20  # images beyond the first ones, of those that a run reads wrongly
PARTS = 10_000  # probabilities are written as whole numbers of ten-thousandths


def choose(wrong: list[NDArray[np.bool_]], count: int, images: int) -> list[int]:
    """Which test images are shown: the first `count` of `images`, and up to WRONG later ones that some run has wrong [N]."""
    first = min(count, images)
    missed = np.flatnonzero(np.any(np.stack(wrong), axis=0)) if wrong else np.zeros(0, dtype=int)
    return [*range(first), *missed[missed >= first][:WRONG].tolist()]


def images_of(data: Dataset, chosen: Tensor) -> dict[str, Any]:
    """The images at `chosen` [n] as PNGs, each with a list of its labels, several where they are asked in turn (-1: none left)."""
    labels = data.labels[chosen]
    height, width = data.images.shape[-2:]
    return {
        "index": chosen.tolist(),
        "height": int(height),
        "width": int(width),
        "images": [png(image) for image in data.images[chosen]],
        "truth": labels.reshape(len(labels), -1).tolist(),
    }


def looks_of_agent(run: Run, chosen: Tensor) -> dict[str, Any]:
    """The looks of the mean policy at the images, gathered as for `hardattn show`."""
    paths = Paths(run.agent, run.world(batch_size=len(chosen), repeats=1), chosen)
    sides = [paths.size << scale for scale in range(paths.scales)]  # finest first
    corners = np.stack([np.floor(paths.path - (side - 1) / 2 + 0.5) for side in sides], axis=2).astype(int)  # as hard_glimpse cuts
    boxes = np.concatenate([corners, corners + np.array(sides)[:, None]], axis=-1)  # [n, T, S, 4] left, top, right, bottom
    middles = np.round(paths.path.astype(float), 2)
    return {
        "each": paths.each,
        "size": paths.size,
        "scales": paths.scales,
        "boxes": boxes.tolist(),
        "path": middles.tolist(),
        "beliefs": _parts(paths.beliefs),
        "glimpses": [png(_sheet(looks)) for looks in paths.glimpses],
    }


def looks_of_baseline(one: Given, data: Dataset, chosen: Tensor) -> dict[str, Any] | None:
    """The crops of a supervised model that has some, without patches, for it samples them anew; None for one that has none."""
    model = train_baseline.open_baseline(one.folder, data)
    with torch.no_grad():
        found = train_baseline.looked(model, data.images[chosen], False)
    if found.boxes is None:
        return None
    by_look = found.logits[:, None] if found.by_look is None else found.by_look
    boxes = found.boxes.float()
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2 - 0.5  # a pixel's middle is its index
    return {
        "each": int(boxes.shape[1]),
        "size": 0,
        "scales": 1,
        "boxes": np.round(boxes[:, :, None].double().numpy(), 1).tolist(),
        "path": np.round(middles.double().numpy(), 2).tolist(),
        "beliefs": _parts(by_look.softmax(dim=-1).numpy()),
        "glimpses": None,
    }


def png(image: Tensor) -> str:
    """An image [C, H, W], uint8 or in [0, 1], as a data URI; of more than three channels the first three."""
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels[0].numpy() if len(pixels) < 3 else pixels[:3].movedim(0, -1).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _sheet(looks: Tensor) -> Tensor:
    """The glimpses of one image [T, S, C, g, g] as one picture [C, T g, S g]: a row a look, a column a scale."""
    times, scales, channels, height, width = looks.shape
    return looks.permute(2, 0, 3, 1, 4).reshape(channels, times * height, scales * width)


def _parts(beliefs: NDArray[np.floating[Any]]) -> Any:
    return np.rint(beliefs.astype(float) * PARTS).astype(int).tolist()
