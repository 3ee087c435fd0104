"""Policy-gradient mathematics, one formula a function. Records run [B, T]: B episodes, T steps."""

import math

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, discount: float) -> Tensor:
    """R_t = r_t + discount * R_{t+1}: rewards [B, T] -> returns [B, T] (Sutton & Barto, equation 3.9)."""
    *earlier, running = rewards.unbind(dim=1)
    returns = [running]
    for reward in reversed(earlier):
        running = reward + discount * running
        returns.append(running)
    return torch.stack(returns[::-1], dim=1)


def generalised_advantages(rewards: Tensor, values: Tensor, discount: float, decay: float) -> Tensor:
    """A_t = delta_t + discount * decay * A_{t+1}, with delta_t = r_t + discount * V_{t+1} - V_t and nothing after the last step.

    rewards and values [B, T] of whole episodes -> advantages [B, T]; decay is lambda (Schulman et al. 2016, equation 16).
    """
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    return discounted_returns(rewards + discount * following - values, discount * decay)


def leave_one_out(returns: Tensor, repeats: int) -> Tensor:
    """Each episode's baseline is the mean return of the other `repeats` - 1 episodes on the same image, step by step.

    Returns [B, T] whose rows hold each image's repeats side by side -> baselines [B, T] (Kool et al. 2019, equation 8). Raises
    ValueError if there are no others.
    """
    if repeats < 2 or len(returns) % repeats:
        raise ValueError(f"leave_one_out: got {len(returns)} rows in groups of {repeats}, wanted whole groups of at least 2")
    groups = returns.unflatten(0, (-1, repeats))  # [B/M, M, T]
    others: Tensor = groups.sum(dim=1, keepdim=True) - groups
    return (others / (repeats - 1)).flatten(0, 1)


def standardise(advantages: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over everything given; of one number, 0."""
    if advantages.numel() < 2:
        return torch.zeros_like(advantages)
    return (advantages - advantages.mean()) / (advantages.std() + epsilon)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-mean over episodes of the sum over steps of log pi(a_t) A_t; its gradient is minus REINFORCE's (Williams 1992).

    log_probs and advantages are [B, T]; no gradient runs through the advantages. Mnih et al. 2014, equation 2.
    """
    return -(log_probs * advantages.detach()).sum(dim=1).mean()


FAR = 20.0  # difference of log-probabilities beyond which a ratio would only overflow, as it can over hundreds of coordinates


def clipped_surrogate_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """-mean of min(r A, clamp(r, 1 - clip, 1 + clip) A), with r = exp(log_probs - old_log_probs).

    Schulman et al. 2017, equation 7, but flat where probabilities differ by more than e^FAR. All [N]; no gradient runs through the
    old log-probabilities and the advantages.
    """
    difference = (log_probs - old_log_probs.detach()).clamp(-FAR, FAR)
    ratio, advantages = difference.exp(), advantages.detach()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Mean squared error of the critic, [B, T] both; no gradient runs through the returns."""
    return (values - returns.detach()).square().mean()


def cosine(progress: float) -> float:
    """The share of the learning rate that is left: 1 at progress 0, 1/2 half way, 0 at progress 1 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
