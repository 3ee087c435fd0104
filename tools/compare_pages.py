"""Make results/NAME.md of each study from the raw rows that `hardattn compare ... --out results/NAME` left in results/NAME/.

    python tools/compare_pages.py            # write all pages again
    python tools/compare_pages.py crossover  # or one

What a page says beside its tables is results/NAME/page.md. A test makes the pages again and compares them to the byte.
"""

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
        "--sweep canvas.size=40,60,100 --set scales=2 --set num_glimpses=6 --set augment=0.2 --set evaluations=10 "
        "--set pathwise:agent.learning_rate=1e-4 --budget 240000 --out results/crossover",
    ),
}


def page(name: str) -> str:
    """A study's tables from its rows, then its words."""
    title, command = PAGES[name]
    words = (FOLDER / name / "page.md").read_text()
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
