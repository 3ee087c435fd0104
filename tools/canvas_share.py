"""What share of a training step goes into drawing canvases: medians over some steps, for each canvas task.

    python tools/canvas_share.py

writes results/canvases/share.json, which results/ram.md quotes. Drawing is timed as training does it, with distorted digits.
"""

import json
import statistics
import time
from pathlib import Path

import torch

from hardattn import experiment, plugins
from hardattn.envs import task_data
from hardattn.envs.tasks import TASKS

STEPS = 15
FILE = Path(__file__).resolve().parent.parent / "results" / "canvases" / "share.json"


def share(task: str) -> float:
    """Seconds for drawing over seconds for a whole update, in percent."""
    setup = experiment.build(task, "reinforce", device="cpu")
    data = task_data.training_data(setup.task)
    network = setup.perception(data)
    world = setup.world(data, network, learning=True, augment=setup.train.augment)
    agent = plugins.make_agent("reinforce", world, config=setup.agent_config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    random, drawing, whole = torch.Generator().manual_seed(0), [], []
    for _ in range(STEPS):
        indices = torch.randint(len(data), (setup.train.batch_size,), generator=random)
        started = time.perf_counter()
        data.show(indices, random, setup.train.augment)  # type: ignore[union-attr]  # canvas tasks alone come here
        drawing.append(time.perf_counter() - started)
        started = time.perf_counter()
        agent.update(world)
        optimizer.zero_grad()
        world.loss().backward()
        optimizer.step()
        whole.append(time.perf_counter() - started)
    return 100 * statistics.median(drawing) / statistics.median(whole)


if __name__ == "__main__":
    table = {task.name: round(share(task.name), 1) for task in TASKS.values() if task.canvas}
    FILE.write_text(json.dumps({"percent": table, "threads": torch.get_num_threads(), "torch": torch.__version__}, indent=2) + "\n")
    print(json.dumps(table, indent=2))
