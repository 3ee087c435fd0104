import math

import pytest
import torch

from hardattn.agents import losses

ROW = torch.tensor([[1.0, 0.0, 2.0]])


def test_returns_sum_what_is_still_to_come() -> None:
    assert losses.discounted_returns(ROW, 1.0).tolist() == [[3, 2, 2]]
    assert losses.discounted_returns(ROW, 0.5).tolist() == [[1.5, 1, 2]]
    assert losses.discounted_returns(ROW, 0.0).tolist() == ROW.tolist()


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    returns = torch.tensor([[1.0], [2.0], [6.0], [0.0], [0.0], [3.0]])  # two images, three episodes each
    assert losses.leave_one_out(returns, 3).flatten().tolist() == [4.0, 3.5, 1.5, 1.5, 1.5, 0.0]
    with pytest.raises(ValueError, match="6 rows in groups of 1"):
        losses.leave_one_out(returns, 1)
    with pytest.raises(ValueError, match="groups of 4"):
        losses.leave_one_out(returns, 4)


def test_standardise() -> None:
    got = losses.standardise(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert float(got.mean()) == pytest.approx(0, abs=1e-6) and float(got.std()) == pytest.approx(1)
    assert not losses.standardise(torch.ones(2, 2)).any()
    assert losses.standardise(torch.tensor([[3.0]])).tolist() == [[0.0]]


def test_policy_gradient_loss_on_paper() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, 0.5], [-2.0, 3.0]], requires_grad=True)
    loss = losses.policy_gradient_loss(log_probs, advantages)
    assert float(loss.detach()) == pytest.approx(-((-1 - 1) + (1 + 0)) / 2)
    loss.backward()
    assert log_probs.grad is not None and log_probs.grad.tolist() == [[-0.5, -0.25], [1.0, -1.5]]
    assert advantages.grad is None


def test_value_loss_on_paper() -> None:
    assert float(losses.value_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))) == pytest.approx(2.5)


def test_cosine_falls_from_one_to_nothing() -> None:
    assert [losses.cosine(x) for x in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert losses.cosine(1 / 3) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert losses.cosine(-1) == 1 and losses.cosine(2) == pytest.approx(0)


def test_generalised_advantages_blend_the_critic_and_the_outcome() -> None:
    values = torch.tensor([[0.5, 1.0, 1.0]])  # deltas at discount 1: 1.5, 0, 1
    assert losses.generalised_advantages(ROW, values, 1.0, 0.5).tolist() == [[1.75, 0.5, 1.0]]
    assert losses.generalised_advantages(ROW, values, 1.0, 0.0).tolist() == [[1.5, 0.0, 1.0]]
    assert losses.generalised_advantages(ROW, values, 1.0, 1.0).tolist() == [[2.5, 1.0, 1.0]]  # returns minus values
    assert losses.generalised_advantages(ROW, values, 0.5, 0.5).tolist() == [[0.9375, -0.25, 1.0]]  # deltas 1, -0.5, 1


def test_the_clipped_surrogate_stops_paying_beyond_the_clip() -> None:
    log_probs = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss = losses.clipped_surrogate_loss(log_probs, torch.zeros(4), advantages, 0.2)
    assert float(loss.detach()) == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    loss.backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, torch.tensor([0.0, -0.5 / 4, 1.5 / 4, 0.0]))  # dr/dlogp = r where it is not clipped


def test_at_the_old_policy_the_surrogate_has_the_policy_gradient() -> None:
    log_probs = torch.tensor([-1.0, -2.0, -0.5]).requires_grad_()
    advantages = torch.tensor([1.0, -2.0, 3.0])
    losses.clipped_surrogate_loss(log_probs, log_probs, advantages, 0.2).backward()
    torch.testing.assert_close(log_probs.grad, -advantages / 3)
