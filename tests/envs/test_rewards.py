import math

import pytest
import torch

from hardattn.envs import rewards

# Two images, three classes: p = (1/2, 1/4, 1/4) and (1/5, 1/5, 3/5).
LOGITS = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(3)]])


def test_correct_pays_for_the_most_likely_class() -> None:
    assert rewards.correct(LOGITS, torch.tensor([0, 1])).tolist() == [1.0, 0.0]


def test_confidence_is_the_labels_probability() -> None:
    assert rewards.confidence(LOGITS, torch.tensor([0, 2])).tolist() == pytest.approx([0.5, 0.6])


def test_evidence_is_the_log_of_it_and_bounded() -> None:
    assert rewards.evidence(LOGITS, torch.tensor([1, 2])).tolist() == pytest.approx([math.log(0.25), math.log(0.6)])
    assert rewards.evidence(torch.tensor([[0.0, 50.0]]), torch.tensor([0])).tolist() == pytest.approx([math.log(1e-3)])


def test_clipped_linear_pays_what_exceeds_chance() -> None:
    assert rewards.clipped_linear(LOGITS, torch.tensor([0, 1])).tolist() == pytest.approx([0.5 - 1 / 3, 0.0])
