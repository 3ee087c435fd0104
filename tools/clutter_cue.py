"""Whether a run tells digits from clutter by how crisp they are: errors where nothing is resampled, digits alone are, or all is.

    python tools/clutter_cue.py RUN [STRENGTH]

RUN is a run folder of a canvas task, or the name of one with shipped weights. STRENGTH is that of `augment`, the run's own if not
given. The canvases are 5,000 of the validation digits, the same for every run. results/ram.md quotes the numbers.
"""

import sys

import torch

from hardattn import evaluate, loading
from hardattn.envs import datasets
from hardattn.envs.canvases import CHUNK, draw
from hardattn.envs.datasets import Dataset

SEED, COUNT = 5, 5000


def errors(name: str, strength: float | None = None) -> dict[str, float]:
    """Percent told wrong by the mean policy on each kind of canvas."""
    run = loading.open_run(name, split="validation")
    config, digits = run.setup.task.canvas, datasets.load(run.setup.task.dataset, "validation")
    assert config is not None
    strength = run.setup.train.augment if strength is None else strength
    found = {}
    for kind, augment, crisp in (("crisp", 0.0, True), ("digits resampled", strength, True), ("all resampled", strength, False)):
        random = torch.Generator().manual_seed(SEED)
        parts = [draw(digits, part, config, random, augment, 1.0, crisp) for part in torch.arange(COUNT).split(CHUNK)]
        images, labels, boxes = (torch.cat([getattr(part, field) for part in parts]) for field in ("images", "labels", "boxes"))
        world = run.world(Dataset(kind, images, labels, run.dataset.classes, boxes), batch_size=CHUNK)
        found[kind] = evaluate.measure(run.agent, world).error
    return found


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    for kind, error in errors(sys.argv[1], float(sys.argv[2]) if len(sys.argv) == 3 else None).items():
        print(f"{kind}: {error:.2f} %")
