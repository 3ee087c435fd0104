from dataclasses import dataclass
from typing import Literal

import pytest

from hardattn import settings
from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import TASKS
from hardattn.settings import TrainSettings


@dataclass(frozen=True)
class Toy:
    """Every kind of field."""

    number: float = 1.0
    count: int = 2
    on: bool = False
    word: str = "a"
    choice: Literal["x", "y"] = "x"
    maybe: int | None = None
    learning_rate: float = 0.1


SECTIONS = {"train": TrainSettings(), "agent": Toy()}


def changed(*assignments: str) -> Toy:
    toy: Toy = settings.override(SECTIONS, settings.parse(assignments))["agent"]
    return toy


def test_text_is_read_as_the_fields_type() -> None:
    toy = changed("number=1e-3", "count=1e6", "on=yes", "word=b=c", "choice=y", "maybe=3")
    assert toy == Toy(number=0.001, count=1_000_000, on=True, word="b=c", choice="y", maybe=3)
    assert changed("maybe=none", "count=1_000").maybe is None
    assert settings.override(SECTIONS, settings.parse(["episodes=2_000"]))["train"].episodes == 2000


def test_a_key_that_two_sections_share_is_spelt_out() -> None:
    with pytest.raises(UsageError, match=r"train\.learning_rate or agent\.learning_rate"):
        changed("learning_rate=1")
    assert changed("agent.learning_rate=1").learning_rate == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmber=1", "did you mean 'number'"),
        ("agent.cuont=1", "did you mean 'agent.count'"),
        ("zzzzzz=1", "known keys: agent.choice"),
        ("count=1.5", "wanted a whole number"),
        ("count=inf", "wanted a whole number"),
        ("number=fast", "wanted a number"),
        ("number=nan", "wanted a number"),
        ("on=maybe", "wanted true or false"),
        ("choice=z", "wanted one of x, y"),
        ("maybe=x", "wanted a whole number or none"),
        ("number", "wanted key=value"),
        ("=3", "wanted key=value"),
    ],
)
def test_a_bad_assignment_says_what_was_wanted(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(text)


@pytest.mark.parametrize(
    "bad",
    [
        {"episodes": 0},
        {"batch_size": 6, "repeats": 4},
        {"random_share": 0.8, "frozen_share": 0.4},
        {"warmup": 2.0},
        {"clip_norm": -1.0},
        {"augment": -0.5},
    ],
)
def test_training_settings_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        TrainSettings(**bad)  # type: ignore[arg-type]


def test_every_preset_fits_its_task() -> None:
    from hardattn.experiment import build

    for task, presets in settings.PRESETS.items():
        if task == "dasnet-fashion":
            continue  # no network of it ships
        assert task in TASKS and {"default", "quick"} <= presets.keys()
        for name in presets:
            for agent in ("reinforce", "random", "ppo", "pathwise"):
                sets = ["start_from=the-long-run"] if name in settings.GOING_ON else []
                build(task, agent, preset=name, sets=sets, device="cpu")
    for task in ("catch", "dasnet-cifar10", "ram-mnist"):  # a population needs a perception that ships, or none
        assert build(task, "snes", device="cpu").train.repeats == 50
    assert build("dram-pairs", "snes", sets=["mode=joint"], device="cpu").agent_config.policy == "linear"
    with pytest.raises(UsageError, match="no pretrained perception for dram-pairs ships"):
        build("dram-pairs", "snes", device="cpu")
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        settings.preset("ram-mnist", "quik")
