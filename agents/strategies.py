"""Evolution strategies behind one ask and tell: our own SNES in torch, and evosax's by name.

All minimise. A member whose fitness is NaN ranks last; if all are NaN, `tell` refuses. What is deployed is the mean of the search
distribution, never the best member: the best of many noisy evaluations owes most to luck.
"""

import hashlib
import math
import os
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from hardattn.envs.errors import HardattnError, UsageError, unknown

EVOSAX = ("SNES", "Open_ES", "PGPE", "Sep_CMA_ES", "CR_FM_NES")
EVEN = ("Open_ES", "PGPE", "CR_FM_NES")  # these draw members in pairs
ADAM = ("Open_ES", "PGPE")  # these move their mean by an optimiser of one's choice


class Strategy(Protocol):
    """A search distribution over vectors [d]."""

    @property
    def mean(self) -> Tensor:
        """Its middle, [d]."""

    @property
    def deviation(self) -> Tensor:
        """Its standard deviation, [d] or one number."""

    def ask(self, population: int) -> Tensor:
        """Draw members [p, d]."""

    def tell(self, fitness: Tensor) -> None:
        """Learn what the members just drawn are worth, [p], less being better. HardattnError if all are NaN."""

    def state_dict(self) -> dict[str, Any]:
        """Enough to go on to the bit. Take it between `tell` and `ask`."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""


def ranked(fitness: Tensor) -> Tensor:
    """Fitness [p] with NaN made the worst. Raises HardattnError if nothing else is there."""
    broken = fitness.isnan()
    if bool(broken.all()):
        raise HardattnError(
            "the fitness of every member is NaN; the last checkpoint is kept. Try a smaller step, e.g. --set agent.std=0.01"
        )
    return fitness.masked_fill(broken, math.inf)


def utilities(fitness: Tensor) -> Tensor:
    """What each member's noise counts, [p] -> [p], summing to 0: max(0, log(p/2 + 1) - log k) for the k-th best, scaled, minus 1/p.

    Wierstra et al. 2014, section 3.1. Members that are alike share what their ranks are worth together.
    """
    count = len(fitness)
    k = torch.arange(1, count + 1, dtype=torch.float64, device=fitness.device)
    worth = (math.log(count / 2 + 1) - k.log()).clamp(min=0)
    worth = worth / worth.sum() - 1 / count
    values, place, size = fitness.sort().values.unique_consecutive(return_inverse=True, return_counts=True)
    shared = torch.zeros(len(values), dtype=torch.float64, device=fitness.device).index_add_(0, place, worth) / size
    share: Tensor = shared[torch.searchsorted(values, fitness)]
    return share.float()


def snes_step(
    mean: Tensor, deviation: Tensor, noise: Tensor, utility: Tensor, mean_rate: float, deviation_rate: float
) -> tuple[Tensor, Tensor]:
    """One step of separable natural evolution: mean and deviation [d], noise [p, d], utility [p].

    Wierstra et al. 2014, algorithm 6: mean + mean_rate deviation sum_k u_k s_k, and deviation exp(deviation_rate / 2 sum_k u_k
    (s_k^2 - 1)).
    """
    new_mean = mean + mean_rate * deviation * (utility @ noise)
    return new_mean, deviation * (deviation_rate / 2 * (utility @ (noise.square() - 1))).exp()


def deviation_rate(size: int) -> float:
    """The usual step size of the deviation for d dimensions, (3 + ln d) / (5 sqrt d) (Wierstra et al. 2014, table 1)."""
    return (3 + math.log(size)) / (5 * math.sqrt(size))


def member_noise(size: int, seed: int, generation: int, member: int, device: torch.device) -> Tensor:
    """The noise [d] of one member of one generation: on one kind of device the same wherever and beside whomever it is drawn."""
    name = hashlib.sha256(f"{seed} {generation} {member}".encode()).digest()
    random = torch.Generator(device).manual_seed(int.from_bytes(name[:7], "big"))
    return torch.randn(size, generator=random, device=device)


class Snes:
    """Separable natural evolution strategy (Schaul et al. 2011), on the device; `mirrored` draws every noise with both signs."""

    def __init__(
        self,
        size: int,
        std: float,
        *,
        mean_rate: float = 1.0,
        deviation_rate_factor: float = 1.0,
        floor: float = 0.0,
        mirrored: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.mean = torch.zeros(size, device=device)
        self.deviation = torch.full((size,), std, device=device)
        self.mean_rate, self.deviation_rate = mean_rate, deviation_rate_factor * deviation_rate(size)
        self.floor, self.mirrored, self.seed, self.generation = floor, mirrored, seed, 0

    def ask(self, population: int) -> Tensor:
        """Mean + deviation * noise, [p, d]."""
        if self.mirrored and population % 2:
            raise UsageError(f"a population of {population}: mirrored members come in pairs; wanted an even number")
        drawn = population // 2 if self.mirrored else population
        device = self.mean.device
        noise = torch.stack([member_noise(len(self.mean), self.seed, self.generation, k, device) for k in range(drawn)])
        self.noise = torch.cat([noise, -noise]) if self.mirrored else noise
        return self.mean + self.deviation * self.noise

    def tell(self, fitness: Tensor) -> None:
        """Move towards the noise of the better half and widen or narrow."""
        utility = utilities(ranked(fitness))
        self.mean, deviation = snes_step(self.mean, self.deviation, self.noise, utility, self.mean_rate, self.deviation_rate)
        self.deviation = deviation.clamp(min=self.floor)
        self.generation += 1

    def state_dict(self) -> dict[str, Any]:
        """Mean and deviation, and the seed and the generation's number, from which all later noise follows."""
        return {"mean": self.mean, "deviation": self.deviation, "seed": self.seed, "generation": self.generation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        device = self.mean.device
        self.mean, self.deviation = state["mean"].to(device), state["deviation"].to(device)
        self.seed, self.generation = state["seed"], state["generation"]


class Evosax:
    """A strategy of evosax: members cross to torch by dlpack, fitness goes back; it works on the CPU."""

    def __init__(
        self, name: str, size: int, std: float, population: int, *, mean_rate: float, seed: int, device: torch.device | str
    ) -> None:
        if name not in EVOSAX:
            raise unknown("strategy of evosax", name, EVOSAX)
        if name in EVEN and population % 2:
            raise UsageError(f"a population of {population}: {name} draws members in pairs; wanted an even number")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported, or it takes the GPU's memory from torch
        import jax
        import jax.numpy as jnp
        import optax  # type: ignore[import-untyped]
        from evosax import algorithms  # type: ignore[import-untyped]

        self._jax, self.name, self.population, self.device = jax, name, population, torch.device(device)
        # Adam's step is about its rate in every coordinate, so the rate is one in units of the deviation, as for SNES.
        settings: dict[str, Any] = {"optimizer": optax.adam(mean_rate * std)} if name in ADAM else {}
        if name == "SNES":
            settings["optimizer"] = optax.sgd(mean_rate)
        if name == "Open_ES":
            settings["std_schedule"] = optax.constant_schedule(std)
        self.strategy = getattr(algorithms, name)(population_size=population, solution=jnp.zeros(size), **settings)
        params = self.strategy.default_params
        self.params = params.replace(std_init=jnp.asarray(std)) if hasattr(params, "std_init") else params
        self.key, first = jax.random.split(jax.random.PRNGKey(seed))
        begun = self.strategy.init(first, jnp.zeros(size), self.params)
        # Plain arrays: what `init` returns has other types than what `tell` returns, and everything would be compiled twice.
        self.state = jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.asarray(leaf).dtype), begun)

    @property
    def mean(self) -> Tensor:
        """The middle of the search distribution, [d], a copy."""
        return from_dlpack(self.strategy.get_mean(self.state)).clone().to(self.device)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation, [d] or one number, a copy."""
        deviation = self.state.std
        if self.name == "Sep_CMA_ES":
            deviation = deviation * self.state.C**0.5
        elif self.name == "CR_FM_NES":  # members are D (I + v v^T)^(1/2) away
            deviation = deviation * self.state.D * (1 + self.state.v**2) ** 0.5
        return from_dlpack(deviation).clone().to(self.device)

    def ask(self, population: int) -> Tensor:
        """Draw members [p, d]. Raises UsageError for another population than at the start."""
        if population != self.population:
            raise UsageError(f"a population of {population}: {self.name} began with {self.population}")
        self.key, key = self._jax.random.split(self.key)
        self.members, self.state = self.strategy.ask(key, self.state, self.params)
        # A copy: writing into shared memory would change jax's members behind its back.
        return from_dlpack(self.members).clone().to(self.device)

    def tell(self, fitness: Tensor) -> None:
        """Learn what the members are worth."""
        worst = ranked(fitness)
        finite = worst[worst.isfinite()]
        worst = worst.clamp(max=float(finite.max()) + 1) if len(finite) else worst  # last, for strategies that count in values
        self.key, key = self._jax.random.split(self.key)
        values = self._jax.numpy.from_dlpack(worst.detach().float().cpu().contiguous())
        self.state, _ = self.strategy.tell(key, self.members, values, self.state, self.params)

    def state_dict(self) -> dict[str, Any]:
        """The leaves of evosax's state and its key, as bytes with shape and type."""
        leaves = [_packed(leaf) for leaf in self._jax.tree.leaves(self.state)]
        return {"name": self.name, "population": self.population, "leaves": leaves, "key": _packed(self.key)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        jnp, tree = self._jax.numpy, self._jax.tree
        leaves = [jnp.asarray(_unpacked(leaf)) for leaf in state["leaves"]]
        self.state = tree.unflatten(tree.structure(self.state), leaves)
        self.key = jnp.asarray(_unpacked(state["key"]))


def _packed(leaf: Any) -> dict[str, Any]:
    import numpy as np

    array = np.asarray(leaf)
    return {
        "type": str(array.dtype),
        "shape": list(array.shape),
        "bytes": torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy()),
    }


def _unpacked(packed: dict[str, Any]) -> Any:
    import numpy as np

    return np.frombuffer(packed["bytes"].numpy().tobytes(), packed["type"]).reshape(packed["shape"])
