"""Controls: agents that look without learning. Every learner must beat them, through a perception trained on just such looks."""

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from hardattn.agents.base import collect
from hardattn.envs.errors import UsageError
from hardattn.envs.glimpse import to_locations
from hardattn.envs.observation import Observation
from hardattn.envs.shuffle import restore
from hardattn.envs.world import World


@dataclass(frozen=True)
class ControlConfig:
    """The controls have no settings."""


class Random:
    """Looks anywhere in the action space, uniformly; greedy or not."""

    Config = ControlConfig
    recordable = True

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        *,
        config: ControlConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.low = torch.as_tensor(action_space.low, device=device)
        self.span = torch.as_tensor(action_space.high - action_space.low, device=device)

    def begin(self, batch_size: int) -> None:
        """Nothing to remember."""

    def act(self, observation: Tensor, memory: None, greedy: bool = False) -> tuple[Tensor, None]:
        """A uniform draw for each row."""
        draw = torch.rand(len(observation), len(self.low), generator=self.generator, device=observation.device)
        return self.low + self.span * draw, None

    def update(self, world: World) -> dict[str, Tensor]:
        """Play one batch, so that perception can learn from it; nothing else changes."""
        return {"return": collect(self, world).rewards.sum(dim=1).mean()}

    def schedule(self, progress: float) -> None:
        """Nothing learns here."""

    def state_dict(self) -> dict[str, Any]:
        """The random generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the same stream of looks."""
        if "generator" in state:
            restore(self.generator, state["generator"])


class _Path:
    """The same look for every image at step t: a path [T, A] that is repeated when the horizon is longer."""

    Config = ControlConfig

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        *,
        config: ControlConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.path = self.looks(action_space).to(device)

    def looks(self, action_space: spaces.Box) -> Tensor:
        """The path [T, A] in the units of the action space."""
        raise NotImplementedError

    def begin(self, batch_size: int) -> int:
        """The number of looks taken."""
        return 0

    def act(self, observation: Tensor, memory: int, greedy: bool = False) -> tuple[Tensor, int]:
        """The path's next look for each row."""
        return self.path[memory % len(self.path)].expand(len(observation), -1), memory + 1

    def update(self, world: World) -> dict[str, float]:
        """Play one batch, so that perception can learn from it; nothing else changes."""
        return {"return": float(collect(self, world).rewards.sum(dim=1).mean())}

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes, so nothing is kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class Centre(_Path):
    """Looks at the middle at every step."""

    def looks(self, action_space: spaces.Box) -> Tensor:
        """One look, at the middle of the space."""
        return torch.as_tensor((action_space.low + action_space.high) / 2)[None]


class Raster(_Path):
    """Reads the middle of the image row by row on a fixed grid of 2 columns and 3 rows, which covers a centred digit."""

    # An MNIST digit fills the middle 20 of 28 pixels: patches of 8 at spacings of 8 and 7 pixels cover 16 x 22 of them.
    COLUMNS, ROWS = 2, 3
    REACH_X, REACH_Y = 0.3, 0.5

    def __init__(self, observation_space: spaces.Box, action_space: spaces.Box, **settings: Any) -> None:
        if isinstance(observation_space, Observation) and "location" not in observation_space.parts:
            raise UsageError("agent raster: no place is looked at in this task; the control there is centre")
        super().__init__(observation_space, action_space, **settings)

    def looks(self, action_space: spaces.Box) -> Tensor:
        """The grid's middles; further coordinates of the action (a stop number) stay at their low end."""
        xs = torch.linspace(-self.REACH_X, self.REACH_X, self.COLUMNS)
        ys = torch.linspace(-self.REACH_Y, self.REACH_Y, self.ROWS)
        grid = torch.cartesian_prod(ys, xs).flip(-1) * torch.as_tensor(action_space.high[:2])  # [6, 2] as (x, y)
        rest = torch.as_tensor(action_space.low[2:]).expand(len(grid), -1)
        return torch.cat([grid, rest], dim=1)


class Oracle:
    """Is told where the digits lie and looks at them in turn: the ceiling of locating, for tasks whose true boxes are known.

    The first look at a digit goes to its middle, later ones around it. Raises UsageError where boxes are unknown.
    """

    Config = ControlConfig
    # Offsets from the middle, as shares of the box: the middle, then a ring that covers the ink of a centred digit.
    AROUND = ((0, 0), (-0.15, -0.2), (0.15, 0.2), (0.15, -0.2), (-0.15, 0.2), (0, -0.25), (0, 0.25), (-0.2, 0), (0.2, 0))

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        *,
        config: ControlConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.around = torch.tensor(self.AROUND, device=device)
        self.world: Any = None
        self.reach = torch.as_tensor(action_space.high[:2], device=device)
        self.rest = torch.as_tensor(action_space.low[2:], device=device)  # a stop number stays at its low end

    def watch(self, world: World) -> None:
        """Be told which world is played next."""
        self.world = world

    def begin(self, batch_size: int) -> int:
        """The number of looks taken."""
        boxes = getattr(self.world, "boxes", None)
        if boxes is None:
            raise UsageError("agent oracle: this task's true boxes are unknown; wanted a canvas task, e.g. ram-cluttered60")
        return 0

    def act(self, observation: Tensor, memory: int, greedy: bool = False) -> tuple[Tensor, int]:
        """A look [B, A] at the digit whose turn it is."""
        boxes = self.world.boxes  # [B, D, 4]
        box = boxes[:, memory % boxes.shape[1]]
        offset = self.around[memory // boxes.shape[1] % len(self.around)]
        middle = (box[:, :2] + box[:, 2:] - 1) / 2 + offset * (box[:, 2:] - box[:, :2])
        height, width = self.world.images.shape[-2:]
        look = to_locations(middle, height, width) * self.reach
        return torch.cat([look, self.rest.expand(len(look), -1)], dim=1), memory + 1

    def update(self, world: World) -> dict[str, float]:
        """Play one batch, so that perception can learn from it; nothing else changes."""
        return {"return": float(collect(self, world).rewards.sum(dim=1).mean())}

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes, so nothing is kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""
