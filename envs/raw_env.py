"""The second face: raw glimpses for agents that bring their own perception. The agent looks, and also says what it saw.

Observation {"glimpse": [S, C, g, g] in [0, 1], "location": [2]}; action {"location": [2], "guess": 0..K-1}. The first glimpse is
at a random location, as in the RAM paper; each of the T - 1 actions after it brings the next one, and the T-th action's guess
is the answer: reward 1 if it is right, 0 else. Earlier guesses and the last location count for nothing.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hardattn.envs.canvases import Canvases
from hardattn.envs.crops import Crops
from hardattn.envs.datasets import Dataset
from hardattn.envs.drawing import scan_path
from hardattn.envs.errors import UsageError
from hardattn.envs.glimpse import hard_glimpse, lay_out
from hardattn.envs.gymnasium_env import LookVectorEnv, as_floats
from hardattn.envs.tasks import Task


class RawGlimpseVectorEnv(LookVectorEnv):
    """B images at a time, T glimpses of each, no network. info["label"] [B] is there for those who train by supervision.

    Raises UsageError for fewer than one row.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset | Canvases | Crops,
        num_envs: int,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        if task.catch or task.gating:
            raise UsageError(f"task {task.name}: there is nothing to glimpse and guess; wanted a task of digits or photographs")
        if num_envs < 1:
            raise UsageError(f"num_envs={num_envs}: wanted at least 1")
        if isinstance(dataset, Dataset | Crops) and dataset.labels.ndim > 1:
            raise UsageError(f"task {task.name}: it asks for several labels in turn, the raw variant for one guess")
        self.task, source = task, dataset.to(device)
        self._source = source
        glimpse = (task.scales, dataset.channels, task.size, task.size)
        where = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(
            num_envs,
            spaces.Dict({"glimpse": spaces.Box(0.0, 1.0, glimpse, np.float32), "location": where}),
            spaces.Dict({"guess": spaces.Discrete(dataset.classes), "location": where}),
            source,
            torch.device(device),
            render_mode,
        )
        self._generator = torch.Generator(self.device)
        self._seed(seed)

    def _seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def _start(self, examples: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if examples is None:
            examples = torch.randint(len(self.dataset), (self.num_envs,), generator=self._generator, device=self.device)
        self.examples, (self._images, self.labels, _) = examples, self._source.show(examples, self._generator)
        self._field = lay_out(self._images, self.task.size, self.task.scales, self.task.background)
        self.locations: list[Tensor] = []
        first = torch.rand(self.num_envs, 2, generator=self._generator, device=self.device) * 2 - 1
        return self._glimpse(first), self._told()

    def _told(self) -> dict[str, Tensor]:
        return {"example": self.examples, "label": self.labels}

    def _look(self, actions: Any) -> tuple[dict[str, Tensor], Tensor, bool, dict[str, Any], dict[str, Tensor]]:
        location, guess = self._checked(actions)
        done = len(self.locations) == self.task.num_glimpses
        if not done:
            zeros = torch.zeros(self.num_envs, device=self.device)
            return self._glimpse(location), zeros, False, self._told(), {}
        correct = guess == self.labels
        return self._seen, correct.float(), True, self._told(), self._told() | {"correct": correct}

    def _glimpse(self, location: Tensor) -> dict[str, Tensor]:
        location = location.clamp(-1, 1)
        self.locations.append(location)
        cut = hard_glimpse(self._images, location, self.task.size, self.task.scales, self.task.background, self._field)
        self._seen = {"glimpse": cut, "location": location}
        return self._seen

    def _checked(self, actions: Any) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "locations"):
            raise ValueError("step() before reset(): call reset() to start the episodes")
        if not isinstance(actions, dict) or set(actions) != {"location", "guess"}:
            came = sorted(actions) if isinstance(actions, dict) else type(actions).__name__
            raise ValueError(f"action: got {came}, wanted a dict with 'location' and 'guess'")
        location = as_floats("action['location']", actions["location"], self.device)
        guess = actions["guess"] if isinstance(actions["guess"], Tensor) else torch.as_tensor(np.asarray(actions["guess"]))
        if tuple(location.shape) != (self.num_envs, 2):
            raise ValueError(f"action['location']: got {list(location.shape)}, wanted [{self.num_envs}, 2]")
        if tuple(guess.shape) != (self.num_envs,) or guess.is_floating_point():
            raise ValueError(f"action['guess']: got {guess.dtype} {list(guess.shape)}, wanted integers [{self.num_envs}]")
        if self.device.type == "cpu" and not location.isfinite().all():
            raise ValueError("action['location']: got NaN or infinity, wanted numbers in [-1, 1]")
        return location, guess.to(self.device)

    def _picture(self, row: int) -> NDArray[np.uint8]:
        path = torch.stack([location[row] for location in self.locations])
        return scan_path(self._images[row], path, self.task.size, self.task.scales)
