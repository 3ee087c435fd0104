"""What a stranger's module may get wrong, and the line that says so."""

import json
from pathlib import Path

import pytest
import torch

from hardattn import plugins, results
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.experiment import build
from hardattn.testing import small_world
from hardattn.train import Trainer, train

GOOD = """
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Settings:
    reach: float = 0.5

class Looker:
    Config = Settings
    def __init__(self, observation_space, action_space, *, config=None, device="cpu", seed=0):
        self.reach = config.reach
    def begin(self, batch_size):
        return None
    def act(self, observation, memory, greedy=False):
        return torch.full((len(observation), 2), self.reach), None
    def update(self, world):
        observation = world.reset()
        for _ in range(world.horizon):
            observation = world.step(self.act(observation, None)[0]).observation
        return {"reach": torch.tensor(self.reach)}
    def state_dict(self):
        return {}
    def load_state_dict(self, state):
        pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The source that the test asks for, as a module of its own in the current folder."""
    name = f"strangers_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(getattr(request, "param", GOOD))
    monkeypatch.chdir(tmp_path)
    return name


def test_a_config_of_their_own_is_reached_by_set(module: str, tmp_path: Path) -> None:
    setup = build("ram-mnist", f"{module}:Looker", sets=["reach=0.25", "batch_size=10", "core_width=8"], device="cpu")
    metrics = Trainer(setup, tmp_path)._one_update()
    assert metrics["reach"] == 0.25 and isinstance(metrics["reach"], float)


@pytest.mark.parametrize("module", ["from hardattn.agents.reinforce import Reinforce\nclass Mine(Reinforce): ..."], indirect=True)
def test_a_subclass_is_not_shown_bf16_unless_it_says_so(module: str) -> None:
    taken = {name: plugins.takes_bf16(plugins.make_agent(name, small_world())) for name in ("reinforce", f"{module}:Mine", "ppo")}
    assert list(taken.values()) == [True, False, False]


def test_the_study_shows_bf16_to_whom_takes_it(tmp_path: Path) -> None:
    for agent, precision, wanted in (
        ("reinforce", "bf16", torch.bfloat16),
        ("ppo", "bf16", torch.float32),
        ("reinforce", "fp32", torch.float32),
    ):
        setup = build("ram-mnist", agent, sets=["batch_size=10", "core_width=8", f"precision={precision}"], device="cpu")
        assert Trainer(setup, tmp_path).world.reset().dtype == wanted


def test_what_an_agent_tells_leaves_the_curve_its_own_columns(module: str, tmp_path: Path) -> None:
    trainer = Trainer(build("ram-mnist", f"{module}:Looker", sets=["batch_size=10", "core_width=8"], device="cpu"), tmp_path)
    trainer.update, trainer.episodes = 7, 70
    trainer._evaluate({"episodes": 1.0, "seconds": 9.0, "reach": 0.5})
    row = json.loads((tmp_path / results.CURVE).read_text())
    assert (row["update"], row["episodes"], row["seconds"], row["reach"]) == (7, 70, 0.0, 0.5)


EARLY = GOOD.replace("range(world.horizon)", "range(world.horizon - 1)")
NARROW = GOOD.replace(", greedy=False", "")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (EARLY, r"left perception nothing to learn from: ValueError: loss\(\) after 5 of 6 looks"),
        (NARROW, "measuring it failed: TypeError: .*takes 3 positional arguments but 4 were given"),
    ],
    indirect=["module"],
)
def test_what_goes_wrong_in_training_is_a_line_and_a_file(module: str, message: str, tmp_path: Path) -> None:
    sets = ["episodes=20", "batch_size=10", "core_width=8", "evaluations=1"]
    with pytest.raises(HardattnError, match=f"agent {module}:Looker: .*{message}.*error.txt, and `hardattn check"):
        train(build("ram-mnist", f"{module}:Looker", sets=sets, device="cpu"), tmp_path / "run")
    assert "Error" in (tmp_path / "run" / results.ERROR).read_text()


@pytest.mark.parametrize("module", [EARLY], indirect=True)
def test_episodes_that_never_end_are_noticed_where_perception_does_not_learn(module: str, tmp_path: Path) -> None:
    sets = ["mode=frozen", "episodes=20", "batch_size=10", "evaluations=1"]
    with pytest.raises(HardattnError, match=r"played no episode to its end, 6 steps after reset.*`hardattn check"):
        train(build("ram-mnist", f"{module}:Looker", sets=sets, device="cpu"), tmp_path / "run")


CHOOSY = GOOD.replace(
    "    reach: float = 0.5\n",
    """    reach: float = 0.5
    policy: Literal["mlp", "gru"] = "mlp"
    decay: float = 1.0
    def __post_init__(self):
        if self.decay < 0.8:
            raise ValueError("decay must be 0.8 or more")
""",
).replace("import torch\n", "import torch\nfrom typing import Literal\n")


@pytest.mark.parametrize("module", [CHOOSY], indirect=True)
def test_presets_leave_out_what_a_config_of_theirs_refuses(module: str) -> None:
    for task in ("dram-pairs", "catch", "ram-translated60"):  # which say policy=lstm and decay=0.5
        config = build(task, f"{module}:Looker", device="cpu").agent_config
        assert (config.policy, config.decay) == ("mlp", 1.0)
    with pytest.raises(UsageError, match=r"decay=0\.5: Settings refuses it: decay must be 0\.8 or more"):
        build("ram-mnist", f"{module}:Looker", sets=["decay=0.5"], device="cpu")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (GOOD.replace("Config = Settings", "Config = {}"), "Config is {}, wanted a dataclass"),
        (GOOD.replace("reach: float = 0.5", "reach: float"), "wanted a dataclass whose fields all have defaults"),
    ],
    indirect=["module"],
)
def test_a_config_that_is_none_is_named(module: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plugins.default_config(f"{module}:Looker")


@pytest.mark.parametrize("module", [GOOD.replace("observation), 2)", "observation), 3)")], indirect=True)
def test_an_update_that_fails_is_one_line_and_keeps_its_traceback(module: str, tmp_path: Path) -> None:
    setup = build("ram-mnist", f"{module}:Looker", sets=["batch_size=10", "core_width=8"], device="cpu")
    with pytest.raises(HardattnError, match=r"update\(\) failed: ValueError: action: got torch.float32 \[10, 3\]"):
        Trainer(setup, tmp_path)._one_update()
    assert "Traceback" in (tmp_path / "error.txt").read_text()


@pytest.mark.parametrize("module", [GOOD.replace("self.reach = config.reach", "1 / 0")], indirect=True)
def test_a_constructor_that_fails_says_how_it_is_called(module: str, tmp_path: Path) -> None:
    setup = build("ram-mnist", f"{module}:Looker", sets=["batch_size=10"], device="cpu")
    with pytest.raises(HardattnError, match=r"ZeroDivisionError.*observation_space, action_space, \*, config, device, seed"):
        Trainer(setup, tmp_path)
