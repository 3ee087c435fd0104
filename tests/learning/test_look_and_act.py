"""Catch is learned: gaze and paddle together, from the end of a game alone."""

from dataclasses import replace

import torch
from torch import Tensor

from hardattn.agents.base import collect
from hardattn.agents.ppo import PPO, PPOConfig
from hardattn.envs.catch import blind_best, draw_games
from hardattn.envs.catch_world import CatchWorld
from hardattn.envs.tasks import CatchConfig, get_task
from hardattn.envs.world import Step

GAME = CatchConfig(size=8)
TASK = replace(get_task("catch"), catch=GAME, num_glimpses=GAME.size - 1)
GAMES = 2000


class Lottery(CatchWorld):
    """Pays each game for what came of another."""

    def step(self, action: Tensor) -> Step:
        """As in Catch, with rewards moved on by a row."""
        step = super().step(action)
        return step._replace(reward=step.reward.roll(1))


def caught_after_training(kind: type[CatchWorld]) -> float:
    world = kind(TASK, draw_games(GAME, 0, 2**16), batch_size=512)
    config = PPOConfig(policy="lstm", critic="state", lstm_width=64, hidden=64, learning_rate=3e-3, epochs=2, decay=0.6)
    agent = PPO(world.observation_space, world.action_space, config=config, seed=0)
    for _ in range(25):
        agent.update(world)
    unseen = CatchWorld(TASK, draw_games(GAME, 1, GAMES), batch_size=GAMES)
    return float(collect(agent, unseen, greedy=True, indices=torch.arange(GAMES)).rewards.sum(dim=1).mean())


def test_it_looks_and_moves_better_than_any_blind_paddle() -> None:
    assert blind_best(GAME) < 0.3
    assert caught_after_training(CatchWorld) > 0.5


def test_it_learns_nothing_where_play_does_not_pay() -> None:
    assert caught_after_training(Lottery) < 0.4
