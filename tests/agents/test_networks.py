import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from hardattn.agents.base import action_width
from hardattn.agents.networks import CategoricalPolicy, Critic, GaussianPolicy, MixedPolicy, make_policy
from hardattn.envs.action import Action
from hardattn.envs.products import fused

PLANE = spaces.Box(-1, 1, (2,), np.float32)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gaussian_log_prob_on_paper() -> None:
    policy = GaussianPolicy(5, PLANE, 8, 0.5, generator())
    observation = torch.randn(3, 5)
    mean = policy.mean(observation)
    at_mean, one_std_off = policy.log_prob(observation, mean), policy.log_prob(observation, mean + torch.tensor([0.5, 0.0]))
    constant = -2 * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    assert at_mean.tolist() == pytest.approx([constant] * 3)
    assert one_std_off.tolist() == pytest.approx([constant - 0.5] * 3, abs=1e-5)


def test_log_prob_is_of_the_unclipped_sample() -> None:
    policy = GaussianPolicy(5, PLANE, 8, 0.5, generator())
    observation = torch.zeros(1, 5)
    near, far = (policy.log_prob(observation, torch.tensor([[x, 0.0]])) for x in (1.0, 2.0))
    assert far < near


def test_the_mean_keeps_its_gradient_and_the_sample_has_none() -> None:
    policy = GaussianPolicy(5, PLANE, 8, 0.5, generator())
    observation = torch.randn(3, 5)
    sample = policy.sample(observation, generator())
    assert not sample.requires_grad
    policy.log_prob(observation, sample).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in policy.parameters())


def test_means_stay_in_any_box() -> None:
    box = spaces.Box(np.array([0.0, -4.0], np.float32), np.array([1.0, 4.0], np.float32))
    policy = GaussianPolicy(5, box, 8, 0.5, generator())
    means = policy.mean(1000 * torch.randn(100, 5))
    assert bool((means >= torch.tensor([0.0, -4.0])).all() and (means <= torch.tensor([1.0, 4.0])).all())
    assert means[:, 1].abs().max() > 3  # and reach for the bounds


def test_categorical_log_probs_sum_to_one_and_samples_follow_them() -> None:
    policy = CategoricalPolicy(5, spaces.Discrete(3), 8, generator())
    observation = torch.randn(1, 5).expand(3, 5)
    probabilities = policy.log_prob(observation, torch.arange(3)).exp().detach()
    assert float(probabilities.sum()) == pytest.approx(1)
    draws = policy.sample(observation[:1].expand(20_000, 5), generator())
    torch.testing.assert_close(draws.bincount(minlength=3) / 20_000, probabilities, atol=0.02, rtol=0)
    assert int(policy.mean(observation[:1])) == int(probabilities.argmax())
    assert policy.sample(torch.randn(2, 4, 5), generator()).shape == (2, 4)


def mixed() -> MixedPolicy:
    """Two places up to 2 and 3, and three choices."""
    return MixedPolicy(5, Action(np.array([2, 3, 1, 1, 1], np.float32), choices=3), 8, 0.5, generator(), start=2.0)


def test_a_mixed_policy_is_a_gaussian_times_a_softmax() -> None:
    policy, observation = mixed(), torch.randn(1, 5, generator=generator()).expand(20_000, 5)
    places, logits = policy(observation[:1])
    draws = policy.sample(observation, generator())
    assert not draws.requires_grad and bool((draws[:, 2:].sum(dim=1) == 1).all())
    torch.testing.assert_close(draws[:, 2:].mean(dim=0), logits[0].softmax(dim=0).detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(draws[:, :2].mean(dim=0), places[0].detach(), atol=0.02, rtol=0)
    assert draws[:, :2].std(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    told = torch.distributions.Normal(places, 0.5).log_prob(draws[:3, :2]).sum(dim=1)
    told = told + torch.distributions.Categorical(logits=logits).log_prob(draws[:3, 2:].argmax(dim=1))
    torch.testing.assert_close(policy.log_prob(observation[:3], draws[:3]), told)
    torch.testing.assert_close(policy.entropy(observation[:1]), torch.distributions.Categorical(logits=logits).entropy())


def test_a_mixed_policy_acts_greedily_within_bounds_and_every_weight_learns() -> None:
    policy, observation = mixed(), 1000 * torch.randn(4, 6, 5, generator=generator())
    greedy = policy.mean(observation)
    places, logits = policy(observation)
    assert greedy.shape == (4, 6, 5) and torch.equal(greedy[..., :2], places)
    assert torch.equal(greedy[..., 2:].argmax(dim=-1), logits.argmax(dim=-1))
    assert bool((greedy[..., :2].abs() <= torch.tensor([2.0, 3.0])).all())
    made = make_policy(5, Action(np.ones(5, np.float32), choices=3), 8, 0.5, generator())
    seen = torch.randn(7, 5)
    made.log_prob(seen, made.sample(seen, generator())).sum().backward()
    assert isinstance(made, MixedPolicy) and all(bool(weight.grad.abs().sum() > 0) for weight in made.parameters())  # type: ignore[union-attr]


def test_critic_is_linear_and_starts_at_zero() -> None:
    critic = Critic(5)
    assert not critic(torch.randn(3, 2, 5)).any()
    with torch.no_grad():
        critic.weight.copy_(torch.arange(5.0))
        critic.bias.fill_(1.0)
    assert critic(torch.ones(1, 5)).tolist() == [11.0]


def test_action_spaces_that_have_no_policy_are_refused() -> None:
    assert action_width(PLANE) == 2 and action_width(spaces.Discrete(7)) == 7
    with pytest.raises(ValueError, match="wanted a flat Box or a Discrete"):
        make_policy(5, spaces.MultiBinary(3), 8, 0.1, generator())


def test_entropy_is_that_of_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(5, 3, 4, generator=generator)
    box = GaussianPolicy(4, spaces.Box(-1, 1, (2,)), 8, 0.3, generator)
    expected = torch.distributions.Normal(0.0, 0.3).entropy() * 2
    torch.testing.assert_close(box.entropy(observations), expected.expand(5, 3))
    choice = CategoricalPolicy(4, spaces.Discrete(3), 8, generator)  # type: ignore[arg-type]
    torch.testing.assert_close(
        choice.entropy(observations), torch.distributions.Categorical(logits=choice.net(observations)).entropy()
    )


def test_rows_in_bf16_are_multiplied_so_and_come_out_in_float32() -> None:
    policy = GaussianPolicy(20, PLANE, 32, 0.5, generator(), start=1.0)
    observation = torch.randn(2, 7, 20, generator=generator())
    exact, rounded = policy.mean(observation).detach(), policy.mean(observation.bfloat16()).detach()
    assert rounded.dtype == torch.float32 and rounded.shape == exact.shape
    assert 0 < float((exact - rounded).abs().max()) < 0.05
    with torch.no_grad():  # what acts and what learns are the same
        torch.testing.assert_close(policy.mean(observation.bfloat16()), rounded, atol=0.01, rtol=0)
    slopes = []
    for seen in (observation, observation.bfloat16()):
        policy.zero_grad()
        policy.log_prob(seen, torch.ones(2, 7, 2)).sum().backward()
        slopes.append(torch.cat([weight.grad.flatten() for weight in policy.parameters() if weight.grad is not None]))
    assert float(torch.nn.functional.cosine_similarity(*slopes, dim=0)) > 0.99


def test_rows_in_bf16_are_those_of_the_weights_as_they_are_now() -> None:
    policy = GaussianPolicy(20, PLANE, 32, 0.5, generator(), start=1.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1, fused=True)  # whose steps torch does not count as changes
    observation = torch.randn(7, 20, generator=generator()).bfloat16()
    with torch.no_grad():
        before = policy.mean(observation)
    policy.mean(observation).sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = policy.mean(observation)
    assert float((after - before).abs().max()) > 0.1
    torch.testing.assert_close(policy.mean(observation).detach(), after, atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_that_are_kept_are_not_made_again(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused():
        pytest.skip("this torch has no layer in one call")
    monkeypatch.setattr("hardattn.envs.products.quick_in_float32", lambda: True)
    policy = GaussianPolicy(20, PLANE, 32, 0.5, generator(), start=1.0)
    observations = torch.randn(5, 3, 20, generator=generator()).to(dtype)
    wanted = policy.mean(observations)
    wanted.square().sum().backward()
    gradients = [weight.grad for weight in policy.parameters()]
    policy.zero_grad(set_to_none=True)
    with policy.net.keeping():
        with torch.no_grad():
            means = torch.stack([policy.mean(seen) for seen in observations.unbind(dim=1)], dim=1)
            policy.net[2].bias += 1  # type: ignore[index, operator, union-attr]  # which a pass made again would show
        mean = policy.mean(observations)
        assert torch.equal(mean, means) and not torch.equal(policy.mean(observations[:, :2]), means[:, :2])
    assert not torch.equal(policy.mean(observations), means)
    torch.testing.assert_close(mean, wanted, atol=0.02, rtol=0)
    mean.square().sum().backward()
    for weight, other in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, other, atol=0.1, rtol=0.05)


def test_a_critic_of_bf16_is_that_of_float32_but_for_rounding() -> None:
    critic = Critic(4)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 4.0]))
        critic.bias.fill_(0.25)
    observation = torch.tensor([[1.0, 2.0, 4.0, 0.5]])
    for seen in (observation, observation.bfloat16(), observation.double()):
        value = critic(seen)
        assert value.dtype == torch.float32 and value.tolist() == [1.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quick", [False, True])
def test_what_is_not_a_number_in_a_policy_stays_so(dtype: torch.dtype, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardattn.envs.products.quick_in_float32", lambda: quick and fused())
    policy = GaussianPolicy(20, PLANE, 32, 0.5, generator())
    with torch.no_grad():
        policy.net[0].weight[3, 4] = float("nan")  # type: ignore[index, operator, union-attr]
    observation = torch.ones(7, 20, dtype=dtype)
    assert policy.mean(observation).isnan().all()
    with torch.no_grad():
        assert policy.mean(observation).isnan().all()
