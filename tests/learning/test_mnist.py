"""A short run on real MNIST must beat its fair control: a perception trained for as long on random looks."""

from pathlib import Path

import pytest
import torch

from hardattn.agents.reinforce import Reinforce
from hardattn.experiment import build
from hardattn.train import Trainer

EPISODES = 400_000
SETS = [f"episodes={EPISODES}", "core_width=128", "glimpse_width=128", "encoder_width=128", "augment=0", "evaluations=1"]


def validation_error(folder: Path, agent: str) -> float:
    """Error in percent of the mean policy on the validation digits, after a short training; the test split is not touched."""
    trainer = Trainer(build("ram-mnist", agent, sets=SETS, seed=0, device="cpu"), folder)
    for _ in range(trainer.phase.updates):
        trainer._one_update()
    trainer._evaluate({})
    assert trainer.validation_error is not None
    return trainer.validation_error


def test_reinforce_learns_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned, random = validation_error(tmp_path, "reinforce"), validation_error(tmp_path, "random")
    print(f"error on validation after {EPISODES} images: learned looks {learned:.2f} %, random looks {random:.2f} %")
    assert learned < 0.6 * random

    def flipped(self: Reinforce, seen: torch.Tensor, actions: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        return policy_loss(self, seen, actions, -advantages)

    policy_loss = Reinforce.policy_loss
    monkeypatch.setattr(Reinforce, "policy_loss", flipped)
    assert validation_error(tmp_path, "reinforce") > 0.6 * random  # the negative control: running from reward must not pass
