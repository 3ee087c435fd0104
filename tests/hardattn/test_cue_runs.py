"""Digits with a cue through the study: hard gates are learned by trial and refused by backpropagation; all share a trunk."""

from pathlib import Path

import pytest
import torch

from hardattn.baselines.squeeze_excite import NoSqueeze, SqueezeExcite, SqueezeExciteConfig
from hardattn.cli import main
from hardattn.envs import cnn
from hardattn.envs.errors import UsageError
from hardattn.experiment import build
from hardattn.train import Trainer

SHORT = ["episodes=64", "batch_size=32", "evaluations=1", "train.keep=last"]


def test_reinforce_learns_hard_gates_on_the_shipped_network(tmp_path: Path) -> None:
    setup = build("dasnet-cue", "reinforce", sets=[*SHORT, "rule=threshold", "repeats=4", "std=0.5"], device="cpu")
    trainer = Trainer(setup, tmp_path)
    before = [weight.clone() for weight in trainer.agent.policy.parameters()]
    trainer._one_update()
    gains = torch.cat(trainer.world.gains[-1], dim=1)
    assert gains.shape == (32, 112) and set(gains.unique().tolist()) == {0.0, 1.0}
    assert 0.95 < float(gains.mean()) < 0.995  # Phi(2) = 0.977
    assert any(not torch.equal(one, other) for one, other in zip(before, trainer.agent.policy.parameters(), strict=True))


def test_pathwise_refuses_hard_gates_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "dasnet-cue", "--agent", "pathwise", "--set", "rule=threshold", "--out", str(tmp_path / "soft")]
    with pytest.raises(SystemExit) as left:
        main(words)
    said = capsys.readouterr().err
    assert left.value.code == 2 and "rule=threshold: such gains have no derivative to learn by" in said and "Traceback" not in said
    assert not (tmp_path / "soft").exists()
    with pytest.raises(UsageError, match="wanted 0 to 2"):
        build("dasnet-cue", "snes", sets=["first=3"])


def test_baselines_with_small_receptive_fields_have_the_trunk_of_the_frozen_network() -> None:
    frozen = cnn.cue(3, 10)
    for kind in (SqueezeExcite, NoSqueeze):
        made = kind((3, 36, 36), 10, SqueezeExciteConfig(layout="local"))
        convolutions = [layer for layer in made.blocks.modules() if isinstance(layer, torch.nn.Conv2d)]
        own = [stage.conv for stage in frozen.stages]
        assert [layer.weight.shape for layer in convolutions] == [layer.weight.shape for layer in own]  # type: ignore[union-attr]
        assert [layer.padding for layer in convolutions] == [layer.padding for layer in own]  # type: ignore[union-attr]
        shown = torch.rand(2, 3, 36, 36)
        assert made.eval()(shown).maps.shape == (2, 112)
