"""Make results/dasnet-cifar10.md and its figure from what is gathered in results/dasnet/.

    python tools/dasnet_table.py add ROW RUN_FOLDER    # gather a finished run under a row's name, with how its gains moved
    python tools/dasnet_table.py views ROW NETWORK     # measure a network's average over as many views as there are passes
    python tools/dasnet_table.py figure                # draw results/dasnet-gains.png again
    python tools/dasnet_table.py                       # write the page again

A test makes the page again and compares it to the byte.
"""

import base64
import json
import statistics
import sys
import textwrap
from pathlib import Path
from typing import Any

import gathered
import numpy as np

from hardattn.statistics import mcnemar, paired_bootstrap

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "dasnet"
RUNS = FOLDER / "runs.jsonl"
FIGURE = ROOT / "results" / "dasnet-gains.png"

CLEAN = "hardattn train dasnet-cifar10 --agent "
SPOILED = "hardattn train dasnet-cifar10 --set corruption=all --agent "
LAST = "snes --set first=4"
MAXOUT = "hardattn train dasnet-cifar10 --preset maxout --agent "
NARROW = " --set perception_from=dasnet-cifar10-narrow"
GENTLE = "pathwise --set std=0 --set agent.learning_rate=2e-5 --set train.keep=last --set episodes=16000"
STATIC = "pathwise --set static=true --set std=0 --set episodes="
# Row -> the command that makes it, without the seed; the rows that the others are held against come first in their part.
ROWS = {
    "vanilla": CLEAN + "centre --set episodes=128",
    "views": "python tools/dasnet_table.py views views dasnet-cifar10-pretrained",
    "pathwise": CLEAN + GENTLE,
    "spoiled: vanilla": SPOILED + "centre --set episodes=128",
    "spoiled: views": "python tools/dasnet_table.py views 'spoiled: views' dasnet-cifar10-pretrained",
    "spoiled: static": SPOILED + STATIC + "40000",
    "spoiled: pathwise": SPOILED + "pathwise --set episodes=40000",
    "narrow: vanilla": CLEAN + "centre --set episodes=128" + NARROW,
    "narrow: views": "python tools/dasnet_table.py views 'narrow: views' dasnet-cifar10-narrow",
    "narrow: static": CLEAN + STATIC + "24000" + NARROW,
    "narrow: pathwise": CLEAN + GENTLE + NARROW,
    "narrow: snes, last block": CLEAN + LAST + NARROW,
    "narrow, spoiled: vanilla": SPOILED + "centre --set episodes=128" + NARROW,
    "narrow, spoiled: views": "python tools/dasnet_table.py views 'narrow, spoiled: views' dasnet-cifar10-narrow",
    "narrow, spoiled: static": SPOILED + STATIC + "40000" + NARROW,
    "narrow, spoiled: pathwise": SPOILED + "pathwise --set episodes=40000" + NARROW,
    "narrow, spoiled: reinforce": SPOILED + "reinforce --set episodes=40000" + NARROW,
    "narrow, spoiled: ppo": SPOILED + "ppo --set episodes=40000" + NARROW,
    "narrow, spoiled: snes, last block": SPOILED + LAST + NARROW,
    "narrow, spoiled: snes, last block, small steps": SPOILED
    + LAST
    + " --set agent.learning_rate=0.2 --set episodes=4800000"
    + NARROW,
    "maxout: vanilla": MAXOUT + "centre --set episodes=128",
    "maxout: snes, static": MAXOUT + "snes --set policy=static --set sees=all --set episodes=12000000",
    "maxout: snes, last layer": MAXOUT
    + "snes --set first=2 --set policy=projected --set rank=3"
    + " --set repeats=50 --set batch_size=3200 --set episodes=12000000",
    "maxout: snes": MAXOUT + "snes",
    "maxout: snes, on a GPU": MAXOUT
    + "snes --set precision=fp32 --set repeats=128 --set batch_size=65536 --set episodes=180000000",
    "maxout: pathwise": MAXOUT + "pathwise --set std=0",
}
VIEWS = ((0, 0), (-1, -1), (1, 1))  # shifts in pixels, each plain and mirrored: six views for six passes
# What rows of a part begin with, and the part's title; its first row is the one that the others are held against.
PARTS = {
    "": "Clean images",
    "spoiled: ": "Spoiled images: noise, blur, contrast and JPEG at five strengths, a quarter each",
    "narrow: ": "Clean images, a network of fewer maps",
    "narrow, spoiled: ": "Spoiled images, the network of fewer maps",
    "maxout: ": "Clean images, the paper's kind of network, trained for 3 passes only",
}


# One seed of each of these is drawn.
DRAWN = (
    "pathwise",
    "spoiled: static",
    "spoiled: pathwise",
    "narrow, spoiled: snes, last block, small steps",
    "maxout: snes",
    "maxout: pathwise",
)


def pack(wrong: Any) -> str:
    """Which images are wrong, as text."""
    return base64.b64encode(np.packbits(np.asarray(wrong, dtype=bool)).tobytes()).decode()


def unpack(text: str, count: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """The inverse of `pack`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def add(name: str, folder: Path) -> None:
    """Gather a run, which images it has wrong, and how far from 1 the gains of each layer are at each pass."""
    gathered.add(RUNS, list(ROWS), name, folder)
    from hardattn import results
    from hardattn.loading import open_run

    rows = gathered.read(RUNS)
    final = json.loads((folder / "final.json").read_text())
    row = next(one for one in rows if (one["row"], one["seed"]) == (name, final["seed"]))
    row["wrong"] = pack(results.read_state(folder / results.PREDICTIONS)["wrong"])
    row["gains"] = gains(open_run(str(folder)))
    write(rows)


def gains(run: Any) -> dict[str, Any]:
    """Of 1,000 test images: each layer's distance from 1 at each pass, and a histogram of the last pass's gains."""
    import torch

    from hardattn.agents.base import collect
    from hardattn.envs.gains import spread_of

    world = run.world(batch_size=1000, repeats=1)
    collect(run.agent, world, True, torch.arange(1000))
    last = torch.cat(world.gains[-1], dim=1)
    return {
        "moved": [[round(float(one), 4) for one in spread_of(layers)] for layers in world.gains],
        "histogram": torch.histc(last.clamp(0, 3), 60, 0, 3).long().tolist(),
    }


def views(name: str, network: str) -> None:
    """Measure the average over views of a network, on the spoiled images if the row says so."""
    import dataclasses

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hardattn import loading
    from hardattn.envs.task_data import fixed_data
    from hardattn.evaluate import percent

    task, cnn = loading.open_perception(network)
    spoiled = "spoiled" in name
    assert task.gating is not None
    setup = dataclasses.replace(task, gating=dataclasses.replace(task.gating, corruption="all" if spoiled else "none"))
    data = fixed_data(setup, "test")
    cnn.eval()
    wrong = []
    for images, labels in zip(data.images.split(1000), data.labels.split(1000), strict=True):
        total: Any = 0
        for across, down in VIEWS:
            moved = torch.nn.functional.pad(images.float(), (1, 1, 1, 1), mode="reflect").to(torch.uint8)
            moved = moved[:, :, 1 + down : 33 + down, 1 + across : 33 + across]
            for view in (moved, moved.flip(3)):
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    total = total + cnn(view).softmax(dim=1)
        wrong.append(total.argmax(dim=1) != labels)
    missed = torch.cat(wrong)
    with FlopCounterMode(display=False) as counter:
        cnn(data.images[:8])
    flops = counter.get_total_flops() / 8 * 2 * len(VIEWS)
    row = {
        "row": name,
        "seed": 0,
        "flops_per_image": flops,
        "protocols": {"mean": {"error": percent(missed)}},
        "wrong": pack(missed),
    }
    rows = [one for one in gathered.read(RUNS) if one["row"] != name] + [row]
    write(sorted(rows, key=lambda one: (list(ROWS).index(one["row"]), one["seed"])))


def write(rows: list[dict[str, Any]]) -> None:
    """Replace what is gathered."""
    RUNS.write_text("".join(json.dumps(one) + "\n" for one in rows))


def page(rows: list[dict[str, Any]]) -> str:
    """The page as text."""
    lines = [
        "# dasNet on CIFAR-10: feedback onto the filters of a frozen network",
        "",
        "Made by `python tools/dasnet_table.py` from `results/dasnet/runs.jsonl`; the text below the tables is `page.md` there.",
        "Errors in percent on the 10,000 test images (JPEG copies of CIFAR-10), read once at the end of each run. Each row is held",
        "against the first of its table on the same images: how many images only that has wrong (gained), how many only the row",
        "(lost), the exact two-sided p of McNemar, and the 95 % interval of the difference over images (bootstrap), in points.",
    ]
    for prefix, title in PARTS.items():
        part = [row for row in rows if row["row"].startswith(prefix) and (prefix or ": " not in row["row"])]
        base = next((row for row in part if row["row"] == f"{prefix}vanilla"), None)
        if base is None:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            "| row | seed | error | difference | gained | lost | p | 95 % interval | minutes | MFLOP an image |",
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
        reference = unpack(base["wrong"], 10_000)
        for row in part:
            lines.append(line(row, reference, base))
        lines += ["", "| row | seeds | mean error | mean difference |", "|---|---|---|---|"]
        for name in dict.fromkeys(row["row"] for row in part):
            errors = [row["protocols"]["mean"]["error"] for row in part if row["row"] == name]
            mean = statistics.mean(errors)
            lines.append(f"| {name} | {len(errors)} | **{mean:.2f}** | {mean - base['protocols']['mean']['error']:+.2f} |")
    present = {row["row"] for row in rows}
    lines += ["", "Commands (add `--seed K`):", ""]
    lines += [f"- {name}: `{command}`" for name, command in ROWS.items() if name in present]
    lines += ["", "## Which layers move", ""]
    lines += ["Distance of the gains from 1 (root of the mean square) in the last pass, layer by layer, seed 0:", ""]
    moving = [row for row in rows if row["seed"] == 0 and "gains" in row and max(row["gains"]["moved"][-1]) > 0]
    lines += ["| row | from the first gated layer on |", "|---|---|"]
    lines += [f"| {row['row']} | {' '.join(f'{one:.2f}' for one in row['gains']['moved'][-1])} |" for row in moving]
    return "\n".join([*lines, "", (FOLDER / "page.md").read_text().rstrip(), ""])


def line(row: dict[str, Any], reference: Any, base: dict[str, Any]) -> str:
    """One row of a table."""
    wrong = unpack(row["wrong"], 10_000)
    error = row["protocols"]["mean"]["error"]
    told = f"| {row['row']} | {row['seed']} | {error:.2f} "
    minutes = f"{row['seconds'] / 60:.1f}" if "seconds" in row and row is not base else ""
    cost = f"{row['flops_per_image'] / 1e6:.0f}" if "flops_per_image" in row else ""
    if row is base:  # measured by five passes with gains of 1, which is the network as it is: one pass
        return f"{told}| | | | | | | |"
    lost, gained, p = mcnemar(wrong, reference)
    low, high = paired_bootstrap(wrong, reference)
    difference = error - base["protocols"]["mean"]["error"]
    return f"{told}| {difference:+.2f} | {gained} | {lost} | {p:.2g} | {100 * low:+.2f} to {100 * high:+.2f} | {minutes} | {cost} |"


def draw(rows: list[dict[str, Any]]) -> None:
    """How far each layer's gains are from 1, pass by pass, and how gains are spread in the last pass."""
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row["seed"] == 0 and row["row"] in DRAWN]
    figure, grid = plt.subplots(2, len(shown), figsize=(2.6 * len(shown), 4.4), squeeze=False, layout="constrained")
    for (above, below), row in zip(grid.T, shown, strict=True):
        moved = np.array(row["gains"]["moved"])  # [T, layers]
        first = 1 + row["config"]["task"]["gating"]["first"]
        for layer in range(moved.shape[1]):
            colour = plt.cm.viridis((first + layer - 1) / 5)  # type: ignore[attr-defined]
            above.plot(range(1, len(moved) + 1), moved[:, layer], "o-", markersize=3, color=colour, label=f"layer {first + layer}")
        above.set_title(textwrap.fill(row["row"], 30), fontsize=8)
        above.set(xlabel="pass", ylim=(0, 1.1 * moved.max()), xlim=(0.5, 5.5))
        above.legend(fontsize=5, loc="lower right", ncols=2)
        below.stairs(row["gains"]["histogram"], np.linspace(0, 3, 61), fill=True, color="#1f77b4")
        below.set(xlabel="gain in the last pass", yscale="log")
    grid[0, 0].set_ylabel("distance from 1")
    grid[1, 0].set_ylabel("feature maps of 1,000 images")
    figure.savefig(FIGURE, dpi=130)


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"] and len(sys.argv) == 4:
        add(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["views"] and len(sys.argv) == 4:
        views(sys.argv[2], sys.argv[3])
    elif sys.argv[1:] == ["figure"]:
        draw(gathered.read(RUNS))
    elif len(sys.argv) != 1:
        sys.exit(__doc__)
    (ROOT / "results" / "dasnet-cifar10.md").write_text(page(gathered.read(RUNS)))
