"""Make results/NAME.md of each study from the raw rows that `hardattn compare ... --out results/NAME` left in results/NAME/.

    python tools/compare_pages.py            # write all pages again
    python tools/compare_pages.py crossover  # or one

What a page says beside its tables is results/NAME/page.md; a line <FILE> there stands for that file. A test makes the pages again
and compares them to the byte.
"""

import re
import sys
from pathlib import Path

from hardattn import study

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results"
# Page -> its title and the command that made its rows.
PAGES = {
    "crossover": (
        "Where sampling wins: one 12x12 glimpse on ever larger canvases",
        "hardattn compare ram-cluttered60 --agents reinforce,pathwise --baselines cnn,stn,draw-reader "
        "--sweep canvas.size=40,60,100,160 --set scales=2 --set num_glimpses=6 --set augment=0.2 --set evaluations=10 "
        "--set pathwise:agent.learning_rate=1e-4 --budget 240000 --out results/crossover",
    ),
    "channels": (
        "Digits with a cue: soft gates, gains and hard gates",
        "hardattn compare dasnet-cue --agents snes,pathwise,reinforce --baselines se,no-squeeze --budget 240000 --reference se "
        "--set se:layout=local --set se:batch_size=64 --set se:learning_rate=4e-3 --set se:evaluations=8 "
        "--set no-squeeze:layout=local --set no-squeeze:batch_size=64 --set no-squeeze:learning_rate=4e-3 "
        "--set no-squeeze:evaluations=8 --set snes:batch_size=1600 --set snes:policy=projected --set centre:batch_size=3200 "
        "--set reinforce:rule=threshold --set reinforce:std=0.5 --set reinforce:repeats=8 --set reinforce:discount=0 "
        "--set centre:repeats=50 --set centre:evaluations=1 --set random:batch_size=3200 --set random:repeats=50 "
        "--set random:evaluations=1 --jobs 1 --out results/channels",
    ),
}


def page(name: str) -> str:
    """A study's tables from its rows, then its words."""
    title, command = PAGES[name]
    words = (FOLDER / name / "page.md").read_text()
    words = re.sub(r"^<(\S+)>\n", lambda line: (FOLDER / name / line[1]).read_text(), words, flags=re.MULTILINE)
    return study.page_again(FOLDER / name, title, command) + "\n" + words


def main() -> None:
    """Write the pages."""
    for name in sys.argv[1:] or PAGES:
        if name not in PAGES:
            sys.exit(f"no page is called {name}; known: {', '.join(PAGES)}")
        (FOLDER / f"{name}.md").write_text(page(name))
        print(f"results/{name}.md")


if __name__ == "__main__":
    main()
