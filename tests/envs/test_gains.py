"""Gain rules: 1 where scores are 0, never below 0, and each rule's own mean."""

import pytest
import torch

from hardattn.envs.gains import sigmoid_gains, softmax_gains, spread_of, threshold_gains, to_gains, top_gains


@pytest.mark.parametrize("rule", ["softmax", "layer-softmax", "sigmoid", "top-k", "threshold"])
def test_scores_of_zero_give_ones_to_the_bit(rule: str) -> None:
    for layer in to_gains(torch.zeros(3, 77), [32, 45], rule):
        assert torch.equal(layer, torch.ones_like(layer))


@pytest.mark.parametrize("rule", ["softmax", "layer-softmax", "sigmoid", "top-k", "threshold"])
def test_gains_are_never_below_zero_nor_endless(rule: str) -> None:
    scores = torch.randn(5, 20) * 100
    for layer in to_gains(scores, [8, 12], rule):
        assert float(layer.min()) >= 0 and bool(layer.isfinite().all())


def test_a_softmax_has_mean_one_over_all_maps_or_over_each_layer() -> None:
    scores = torch.randn(5, 20)
    joint = to_gains(scores, [8, 12], "softmax")
    assert torch.cat(joint, dim=1).mean(dim=1).tolist() == pytest.approx([1.0] * 5)
    assert not torch.allclose(joint[0].mean(dim=1), torch.ones(5), atol=1e-3)
    for layer in to_gains(scores, [8, 12], "layer-softmax"):
        assert layer.mean(dim=1).tolist() == pytest.approx([1.0] * 5)


def test_numbers_on_paper() -> None:
    """exp(ln 3) = 3 and exp(0) = 1, mean 2: gains 1.5 and 0.5. 2 / (1 + 1/3) = 1.5."""
    scores = torch.tensor([[3.0, 1.0]]).log()
    assert softmax_gains(scores).tolist()[0] == pytest.approx([1.5, 0.5])
    assert sigmoid_gains(scores).tolist()[0] == pytest.approx([1.5, 1.0])
    assert top_gains(torch.tensor([[3.0, 1.0, 2.0, 0.0]]), 0.5).tolist() == [[2.0, 0.0, 2.0, 0.0]]
    assert top_gains(torch.tensor([[3.0, 1.0, 2.0, 0.0]]), 0.25).tolist() == [[4.0, 0.0, 0.0, 0.0]]
    assert threshold_gains(torch.tensor([[-1.1, -1.0, 0.0, 2.0]])).tolist() == [[0.0, 1.0, 1.0, 1.0]]
    assert spread_of([torch.tensor([[2.0, 0.0]]), torch.ones(1, 3)]).tolist() == [1.0, 0.0]


def test_a_hard_choice_among_high_scores_is_still_one() -> None:
    scores = torch.tensor([[5.0, 4.5, 4.0, 3.5, 3.2, 3.1, 0.0, -1.0]])
    assert to_gains(scores, [8], "top-k", 0.25)[0].tolist() == [[4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_a_gate_is_open_with_the_probit_of_its_score() -> None:
    """Means -1.5, -1 and 0 with std 0.5: Phi(-1) = 0.1587, Phi(0) = 0.5, Phi(2) = 0.9772; of 40,000 draws within 4 deviations."""
    noise = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0))
    open_share = threshold_gains(torch.tensor([-1.5, -1.0, 0.0]) + 0.5 * noise).mean(dim=0)
    wanted = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor([-1.0, 0.0, 2.0]))
    assert wanted.tolist() == pytest.approx([0.1587, 0.5, 0.9772], abs=1e-4)
    assert bool(((open_share - wanted).abs() < 4 * (wanted * (1 - wanted) / 40_000).sqrt()).all())
