"""The `show` command: choose images, draw their scan paths."""

from pathlib import Path

import torch

from hardattn import evaluate, loading
from hardattn.envs.errors import HardattnError, UsageError


def draw(
    name: str, *, count: int, first: int, wrong: bool, agent: str | None, task: str | None = None, out: Path | None
) -> list[Path]:
    """Write paths.png and paths.gif (of gains gains.png) for `count` test images from `first` on, or for wrongly read ones only.

    Raises UsageError if there are no such images.
    """
    run = loading.open_run(name, agent=agent, task=task)
    if not 1 <= count <= 40:
        raise UsageError(f"--count {count}: wanted 1 to 40, so that the picture stays readable")
    if not 0 <= first < len(run.dataset):
        raise UsageError(f"--first {first}: the test set has {len(run.dataset)} images, numbered from 0")
    chosen = torch.arange(first, min(first + count, len(run.dataset)))
    if wrong:
        measured = evaluate.measure(run.agent, evaluate.test_world(run.world, run.dataset)())
        chosen = measured.wrong.cpu().nonzero().flatten()
        chosen = chosen[chosen >= first][:count]
        if not len(chosen):
            raise UsageError(f"--wrong: no image from {first} on is read wrongly")
    from hardattn import plots, plots_gains  # matplotlib takes a second to import: only here, once all names are right

    shipped = run.folder.is_relative_to(loading.SHIPPED)
    folder = out or (Path() if shipped else run.folder)
    world = run.world(batch_size=len(chosen), repeats=1)
    files = [folder / "gains.png"] if run.setup.task.gating else [folder / "paths.png", folder / "paths.gif"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if run.setup.task.gating:
            plots_gains.draw_gains(run.agent, world, chosen, files[0])
        else:
            paths = plots.Paths(run.agent, world, chosen)
            plots.draw_sheet(paths, files[0])
            plots.draw_animation(paths, files[1])
    except OSError as error:
        raise HardattnError(f"cannot draw into {folder}: {error.strerror or error}; choose another folder with --out") from error
    return files
