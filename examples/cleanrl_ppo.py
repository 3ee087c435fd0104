"""PPO in one file, in the manner of CleanRL, on any environment id with a flat observation and a Box action.

    python examples/cleanrl_ppo.py --env-id hardattn/RamMnist-v0 --num-envs 512 --total-timesteps 300000

Only `import hardattn` knows of this package: it registers the ids. Everything else is plain Gymnasium and torch.
"""

import argparse
import time

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Normal

import hardattn  # noqa: F401  # registers the ids


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    """A linear layer with orthogonal weights and no bias."""
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """Actor and critic, two hidden layers each."""

    def __init__(self, observation: int, action: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(layer(observation, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(layer(observation, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, action, 0.01))
        self.log_std = nn.Parameter(torch.full((action,), -1.5))

    def distribution(self, observation: torch.Tensor) -> Normal:
        """The policy at an observation."""
        mean = self.actor(observation)
        return Normal(mean, self.log_std.exp().expand_as(mean))


def main() -> None:
    """Train and print the mean return as it goes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-id", default="hardattn/RamMnist-v0")
    parser.add_argument("--num-envs", type=int, default=512)
    parser.add_argument("--num-steps", type=int, default=6)
    parser.add_argument("--total-timesteps", type=int, default=300_000)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, device=device)
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0]).to(device)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    shape = (args.num_steps, args.num_envs)
    observations = torch.zeros(*shape, *envs.single_observation_space.shape, device=device)
    actions = torch.zeros(*shape, *envs.single_action_space.shape, device=device)
    log_probs, rewards, dones, values = (torch.zeros(shape, device=device) for _ in range(4))

    observation, _ = envs.reset(seed=args.seed)
    done = torch.zeros(args.num_envs, device=device)
    iterations = args.total_timesteps // (args.num_steps * args.num_envs)
    started = time.time()
    for iteration in range(1, iterations + 1):
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * (1 - (iteration - 1) / iterations)
        for t in range(args.num_steps):
            observations[t], dones[t] = observation, done
            with torch.no_grad():
                policy = agent.distribution(observation)
                action = policy.sample()
                values[t] = agent.critic(observation).squeeze(-1)
            actions[t], log_probs[t] = action, policy.log_prob(action).sum(-1)
            observation, rewards[t], terminated, truncated, _ = envs.step(action)
            done = (terminated | truncated).float()

        with torch.no_grad():
            following, alive, advantage = agent.critic(observation).squeeze(-1), 1 - done, torch.zeros_like(done)
            advantages = torch.zeros_like(rewards)
            for t in reversed(range(args.num_steps)):
                delta = rewards[t] + args.gamma * following * alive - values[t]
                advantages[t] = advantage = delta + args.gamma * args.gae_lambda * alive * advantage
                following, alive = values[t], 1 - dones[t]
            returns = advantages + values

        flat = [part.flatten(0, 1) for part in (observations, actions, log_probs, advantages, returns)]
        for _ in range(args.epochs):
            for part in torch.randperm(len(flat[0]), device=device).chunk(args.minibatches):
                seen, acted, old, gain, target = (tensor[part] for tensor in flat)
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                ratio = (agent.distribution(seen).log_prob(acted).sum(-1) - old).exp()
                policy_loss = torch.max(-gain * ratio, -gain * ratio.clamp(1 - args.clip, 1 + args.clip)).mean()
                value_loss = 0.5 * (agent.critic(seen).squeeze(-1) - target).square().mean()
                optimizer.zero_grad()
                (policy_loss + 0.5 * value_loss).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        if iteration in (1, iterations) or iteration % 10 == 0:
            steps = iteration * args.num_steps * args.num_envs
            speed = steps / (time.time() - started)
            print(f"steps {steps:,} · mean return {rewards.sum(0).mean():.3f} · {speed:,.0f} steps/s", flush=True)
    envs.close()


if __name__ == "__main__":
    main()
