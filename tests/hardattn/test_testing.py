"""The contract tests must notice every way of breaking the contract."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hardattn import plugins, testing
from hardattn.agents.reinforce import Reinforce
from hardattn.envs.errors import UsageError
from hardattn.testing import check_agent


class WrongShape(Reinforce):
    def act(self, observation: Tensor, memory: None, greedy: bool = False) -> tuple[Tensor, None]:
        return super().act(observation, memory, greedy)[0][:, :1], None


class KeepsGraph(Reinforce):
    def act(self, observation: Tensor, memory: None, greedy: bool = False) -> tuple[Tensor, None]:
        action: Tensor = self.policy.mean(observation)  # type: ignore[operator]
        return action, None


class Scribbles(Reinforce):
    def act(self, observation: Tensor, memory: None, greedy: bool = False) -> tuple[Tensor, None]:
        observation += 1
        return super().act(observation, memory, greedy)


class Unseeded(Reinforce):
    def __init__(self, *spaces: Any, **arguments: Any) -> None:
        super().__init__(*spaces, **arguments)
        self.generator.seed()


class Forgetful(Reinforce):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])


class Idle(Reinforce):
    def update(self, world: Any) -> dict[str, float]:
        return {}


class SaysNan(Reinforce):
    def update(self, world: Any) -> dict[str, float]:
        return super().update(world) | {"loss": float("nan")}


class Asks(Reinforce):
    recordable = True

    def update(self, world: Any) -> dict[str, Tensor]:
        told = super().update(world)
        return {name: value * float(value) for name, value in told.items()}


class Counts(Reinforce):
    recordable = True
    rounds = 0

    def update(self, world: Any) -> dict[str, Tensor]:
        told = super().update(world)
        self.rounds += 1
        with torch.no_grad():
            self.policy.net[2].bias.add_(0.1 * self.rounds)  # type: ignore[operator, union-attr, index]
        return told


BROKEN = {
    WrongShape: "act() returned torch.float32 [8, 1], wanted a float tensor [8, 2]",
    KeepsGraph: "carries a gradient",
    Scribbles: "changed the observation in place",
    Unseeded: "acted differently; draw everything",
    Forgetful: "after load_state_dict() it acted differently",
    Idle: "finished 0 episodes",
    SaysNan: "wanted a finite number",
    Asks: "update() cannot be recorded: aten._local_scalar_dense.default: it reads a number off the device",
    Counts: "replayed, it learned otherwise",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_each_breach_is_found_and_said_in_words(kind: type[Reinforce], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "agent_class", lambda name: kind)
    notes = [finding.note for finding in check_agent("broken") if not finding.passed and not finding.advice]
    assert any(BROKEN[kind] in note for note in notes), notes


def test_our_own_agents_keep_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(finding.passed for finding in check_agent("reinforce"))
    monkeypatch.setattr(testing, "POLICY_PROBES", ())  # tests/learning solves them
    for name in ("ppo", "pathwise", "random", "centre", "raster", "oracle"):
        findings = check_agent(name)
        assert all(finding.passed or finding.advice for finding in findings), (name, findings)


def test_a_class_that_fails_to_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sick_agent.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="importing sick_agent failed: ZeroDivisionError"):
        check_agent("sick_agent:Agent")
    with pytest.raises(UsageError, match="no agent is called"):
        check_agent("nobody")
    assert torch.is_grad_enabled()
