"""Evolution of a whole population as one batch: SNES as in dasNet (Stollenga et al. 2014), and other strategies by name.

Every image is shown to every member: the world's `repeats` are the population. A member is a vector of weights of a small policy;
what its episodes return on average, less a penalty on its length, is its fitness. No gradient is needed of anything.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from hardattn.agents import losses
from hardattn.agents.base import Rollout, action_width, collect
from hardattn.agents.strategies import EVEN, EVOSAX, Evosax, Snes, Strategy
from hardattn.envs.errors import UsageError, at_least, more_than_zero, unknown
from hardattn.envs.observation import Observation
from hardattn.envs.shuffle import restore
from hardattn.envs.world import World

StrategyName = Literal["snes", "evosax:SNES", "evosax:Open_ES", "evosax:PGPE", "evosax:Sep_CMA_ES", "evosax:CR_FM_NES"]


@dataclass(frozen=True)
class SnesConfig:
    """Settings of the evolution strategy; the population is the study's `repeats`."""

    strategy: StrategyName = "snes"
    """snes is our own, on the device; the others are evosax's."""
    policy: Literal["linear", "projected", "static"] = "linear"
    """linear: scores are a linear function of the observation (dasNet); projected: of `rank` random projections of it, which are
    far fewer weights; static: the same scores for every observation."""
    sees: str = "all"
    """The parts of the observation that the policy reads, e.g. hidden,log_probabilities; all reads everything."""
    rank: int = 16
    """Random projections for policy=projected."""
    std: float = 0.3
    """Standard deviation of the weights at the start; weights are scaled so that it is about that of the scores."""
    learning_rate: float = 1.0
    """Step size of the mean, in units of the deviation; Sep_CMA_ES and CR_FM_NES have their own."""
    anneal: bool = False
    """Let that step size fall to 0 along a cosine over the training budget, so that the mean comes to rest where steps of one size
    would throw it about. For snes alone."""
    std_rate: float = 1.0
    """Step size of the deviation, as a multiple of the usual one; 0 keeps the deviation. For snes alone."""
    std_floor: float = 1e-4
    """The deviation never falls below this. For snes alone."""
    mirrored: bool = False
    """Draw every member with its mirror image. For snes alone."""
    penalty: float = 0.0
    """Fitness lost for each unit of a member's length, beside the mean return; dasNet's L2 term stands beside a sum over images."""

    def __post_init__(self) -> None:
        more_than_zero(self, "std", "learning_rate", "rank")
        at_least(self, 0, "std_rate", "std_floor", "penalty")
        known = ("snes", *(f"evosax:{name}" for name in EVOSAX))
        if self.strategy not in known:
            raise unknown("strategy", self.strategy, known)
        if self.policy not in ("linear", "projected", "static"):
            raise unknown("policy", self.policy, ("linear", "projected", "static"))
        if self.anneal and self.strategy != "snes":
            raise UsageError(f"anneal=true: {self.strategy} keeps its own steps; wanted strategy=snes, or anneal left out")

    def check_population(self, repeats: int) -> None:
        """Raise UsageError for a population that the strategy cannot draw."""
        in_pairs = self.mirrored if self.strategy == "snes" else self.strategy.removeprefix("evosax:") in EVEN
        if in_pairs and repeats % 2:
            raise UsageError(f"repeats={repeats}: the strategy draws members in pairs; wanted an even number")


class FlatPolicy:
    """Scores from flat weights: what each member of a population makes of its rows of the observation.

    Scores are squashed into the action space by tanh, about which they are linear near its middle; weights of 0 give the middle.
    For a Discrete space the choice with the highest score is taken.
    """

    def __init__(self, config: SnesConfig, space: spaces.Box, action: spaces.Space[Any], device: torch.device, seed: int) -> None:
        self.action, self.outputs = action, action_width(action)
        self.columns = _columns(config.sees, space).to(device)
        inputs = len(self.columns)
        self.projection: Tensor | None = None
        if config.policy == "projected":
            random = torch.Generator().manual_seed(seed)
            self.projection = (torch.randn(inputs, config.rank, generator=random) / math.sqrt(inputs)).to(device)
            inputs = config.rank
        self.inputs = 0 if config.policy == "static" else inputs
        self.size = self.outputs * (self.inputs + 1)
        if isinstance(action, spaces.Box):
            low, high = torch.as_tensor(action.low), torch.as_tensor(action.high)
            self.middle, self.reach = ((high + low) / 2).to(device), ((high - low) / 2).to(device)

    def act(self, members: Tensor, observation: Tensor) -> Tensor:
        """Members [p, size] and observations [n * p, D], a row for each member of each image in turn -> actions [n * p, ...]."""
        count = len(members)
        bias, weight = members[:, : self.outputs], members[:, self.outputs :].view(count, self.outputs, self.inputs)
        if self.inputs:
            seen = observation.index_select(1, self.columns)
            if self.projection is not None:
                seen = seen @ self.projection
            each = seen.view(-1, count, self.inputs).transpose(0, 1)  # [p, n, I]
            # Divided, so that weights of one size give scores of that size, however many there are.
            scores = torch.baddbmm(bias[:, None], each, weight.transpose(1, 2), alpha=1 / math.sqrt(self.inputs))
            scores = scores.transpose(0, 1).reshape(-1, self.outputs)
        else:
            scores = bias.repeat(len(observation) // count, 1)
        if isinstance(self.action, spaces.Discrete):
            return scores.argmax(dim=1)
        return self.middle + self.reach * torch.tanh(scores / self.reach)


def _columns(sees: str, space: spaces.Box) -> Tensor:
    """The numbers of the observation that belong to the parts named. Raises UsageError for a part that is not there."""
    everything = torch.arange(int(space.shape[0]))
    if sees == "all":
        return everything
    if not isinstance(space, Observation):
        raise UsageError(f"sees={sees}: this observation has no named parts; wanted all")
    parts = space.split(everything)
    names = [name.strip() for name in sees.split(",")]
    for name in names:
        if name not in parts:
            raise unknown("part of the observation", name, ["all", *parts])
    return torch.cat([parts[name].flatten() for name in names])


class SNES:
    """A population of small policies, of which the middle of the search distribution is deployed."""

    Config = SnesConfig
    repeats = 2  # the least it can learn with

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        *,
        config: SnesConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.config, self.device, self.seed = config or SnesConfig(), torch.device(device), seed
        self.policy = FlatPolicy(self.config, observation_space, action_space, self.device, seed)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.mean, self.deviation = (
            torch.zeros(self.policy.size, device=self.device),
            torch.tensor(self.config.std, device=self.device),
        )
        self.strategy: Strategy | None = None  # made at the first update, which tells how large the population is
        self._population: Tensor | None = None

    def begin(self, batch_size: int) -> Tensor:
        """Who plays: the whole population during an update, else one member drawn from the search distribution."""
        if self._population is not None:
            return self._population
        noise = torch.randn(self.policy.size, generator=self.generator, device=self.device)
        return (self.mean + self.deviation * noise)[None]

    def act(self, observation: Tensor, memory: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """What the members in `memory` [p, size] do, or the middle of the distribution if `greedy`."""
        return self.policy.act(self.mean[None] if greedy else memory, observation), memory

    def update(self, world: World) -> dict[str, float]:
        """One generation: every member plays the same batch of examples. UsageError for a population of 1."""
        if world.repeats < 2:
            raise UsageError("snes: a population of 1 has nothing to choose from; it is the study's repeats, e.g. --set repeats=50")
        if self.strategy is None:
            self.strategy = self._new_strategy(world.repeats)
        if self.config.anneal:
            assert isinstance(self.strategy, Snes)
            self.strategy.mean_rate = self.config.learning_rate * losses.cosine(world.progress)
        members = self.strategy.ask(world.repeats)
        returns = self.play(members, world).rewards.sum(dim=1)  # [n * p]
        each = returns.view(-1, world.repeats).mean(dim=0)  # [p]
        fitness = self.config.penalty * members.norm(dim=1) - each
        self.strategy.tell(fitness)
        self.mean, self.deviation = self.strategy.mean, self.strategy.deviation
        report = torch.stack([each.mean(), each.max() - each.min(), self.mean.norm(), self.deviation.mean()]).tolist()
        return dict(zip(("return", "return_range", "length", "std"), report, strict=True))

    def play(self, members: Tensor, world: World, indices: Tensor | None = None) -> Rollout:
        """One batch of episodes, each example by every member [p, size]; the world's repeats must be p."""
        self._population = members
        try:
            return collect(self, world, indices=indices)
        finally:
            self._population = None

    def state_dict(self) -> dict[str, Any]:
        """The middle and the width of the distribution, the strategy's own state, and the generator of drawn members."""
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "projection": self.policy.projection,
            "population": None if self.strategy is None else self._count,
            "strategy": None if self.strategy is None else self.strategy.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`; with the mean alone it can act but not learn on."""
        if state["mean"].shape != self.mean.shape:
            raise ValueError(f"{len(state['mean'])} weights, wanted {len(self.mean)}")
        self.mean = state["mean"].to(self.device)
        if state.get("projection") is not None:
            self.policy.projection = state["projection"].to(self.device)
        if "generator" in state:
            self.deviation = state["deviation"].to(self.device)
            restore(self.generator, state["generator"])
            self.strategy = None
            if state["strategy"] is not None:
                self.strategy = self._new_strategy(state["population"])
                self.strategy.load_state_dict(state["strategy"])

    def _new_strategy(self, population: int) -> Strategy:
        config, self._count = self.config, population
        if config.strategy != "snes":
            name = config.strategy.removeprefix("evosax:")
            return Evosax(
                name, self.policy.size, config.std, population, mean_rate=config.learning_rate, seed=self.seed, device=self.device
            )
        return Snes(
            self.policy.size,
            config.std,
            mean_rate=config.learning_rate,
            deviation_rate_factor=config.std_rate,
            floor=config.std_floor,
            mirrored=config.mirrored,
            seed=self.seed,
            device=self.device,
        )
