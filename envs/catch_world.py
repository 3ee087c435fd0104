"""The world of Catch: an agent moves its gaze and its paddle at once, and sees only what the gaze falls on.

Recurrent Models of Visual Attention (Mnih et al. 2014, section 4.2). There is nothing to classify and no supervision: glimpses go
to the agent as they are, it must remember them itself (`policy=lstm`), and only the end of a game pays.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hardattn.envs import catch, glimpse
from hardattn.envs.action import Action, indicators
from hardattn.envs.catch import Games
from hardattn.envs.drawing import scan_path
from hardattn.envs.errors import UsageError
from hardattn.envs.observation import Observation
from hardattn.envs.shuffle import ShuffledPass
from hardattn.envs.tasks import Task
from hardattn.envs.world import Attention, Counts, Step, not_finite

NOT_FINITE = "action: got NaN or infinity, wanted a gaze and three scores; look at the policy's last update"
SURE = 20.0  # a logit beside a 0: certain to nine digits, and finite


class Unseeing(nn.Module):
    """Stands for the perception of a world that has none: no weights, nothing learns."""


class CatchWorld:
    """B games at a time, one ball each; an episode lasts until the ball is down.

    Observation [B, D]: the glimpse (S patches of g x g), the gaze (x, y), the paddle's last move and the frame's number
    as indicators; before the first frame there is no glimpse and no move. Action [B, 5]: the next gaze (x, y), in the task's unit,
    then a score each for staying, going left and going right: the paddle does what scores most. Then the ball falls a row, and the
    gaze falls on what is there. The reward is 1 at the end if the paddle met the ball. The logits are zeros until then, and then
    tell what came of it: class 0 missed, class 1 caught. Every label is 1, so that the error is the share missed.

    Raises UsageError for a batch that is not a multiple of `repeats` or larger than the number of games.
    """

    attention: Attention = "hard"

    def __init__(
        self,
        task: Task,
        dataset: Games,
        *,
        batch_size: int,
        repeats: int = 1,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if task.catch is None:
            raise UsageError(f"task {task.name}: it is no game of Catch")
        if task.num_glimpses != task.catch.size - 1:
            rows = task.catch.size - 1
            raise UsageError(f"num_glimpses={task.num_glimpses}: on a screen of catch.size={rows + 1} a ball falls {rows} rows")
        self.task, self.device, self.game = task, torch.device(device), task.catch
        self._pass = ShuffledPass(len(dataset), batch_size, repeats, seed, self.device, "games")
        self.dataset = dataset.to(self.device)
        self.horizon, self.batch_size, self.repeats, self.stop = task.num_glimpses, batch_size, repeats, False
        self.progress = 0.0
        self._reach = 0.5 / task.unit
        high = np.array([self._reach] * 2 + [1.0] * len(catch.MOVES), np.float32)
        self.action_space = Action(high, choices=len(catch.MOVES))
        self.observation_space = Observation(
            {
                "glimpse": (task.scales, 1, task.size, task.size),
                "location": (2,),
                "move": (len(catch.MOVES),),
                "clock": (self.horizon,),
            },
            state=2 * self.game.size + self.horizon,
        )
        self._moves = torch.tensor(catch.MOVES, device=self.device)
        # A coarse pixel tells how many white ones it covers: their mean would make a ball of one pixel all but invisible.
        self._area = (4.0 ** torch.arange(task.scales, device=self.device))[:, None, None, None]
        self._clock = torch.eye(self.horizon, device=self.device)
        self._offsets = torch.eye(2 * self.game.size, device=self.device)
        # Games, frames, caught, unique pixels, clipped, frames with the ball in the finest patch, actions that were not finite
        self._tally = torch.zeros(7, dtype=torch.int64, device=self.device)

    recordable = True

    @property
    def generator(self) -> torch.Generator:
        """Where its chances come from: the order of examples, canvases, distortions."""
        return self._pass.generator

    def deal(self) -> None:
        """Lay the next batch out: `reset()` shows it, and so does its replay where it is part of a recorded update."""
        self._pass.deal()

    def reset(self, indices: Tensor | None = None) -> Tensor:
        """Begin the next games of a shuffled pass, or those at `indices` [n] (then B = n x repeats). Returns [B, D]."""
        examples = self._pass.take() if indices is None else indices.to(self.device)
        self.examples = examples.repeat_interleave(self.repeats) if self.repeats > 1 else examples
        self._start, self._slope, paddle = self.dataset.starts[self.examples].unbind(dim=1)
        self._paddle, batch = paddle.long(), len(self.examples)
        self.labels = torch.ones(batch, dtype=torch.int64, device=self.device)
        self.boxes = None
        self.locations: list[Tensor] = []  # each [B, 2], as looked at
        self.hits: list[Tensor] = []  # each [B] bool: the ball lay within the finest patch
        self.frames: list[Tensor] = []  # each [B, 1, size, size] uint8
        self._logits = torch.zeros(batch, 2, device=self.device)
        nothing = torch.zeros(batch, self.task.scales * self.task.size**2, device=self.device)
        nowhere, unmoved = torch.zeros(batch, 2, device=self.device), torch.zeros(batch, len(catch.MOVES), device=self.device)
        return self._observe(nothing, nowhere, unmoved)

    def step(self, action: Tensor) -> Step:
        """Move, let the ball fall a row, look: action [B, 5]. ValueError for another shape or dtype, NaN, or after the end."""
        self._check(action)
        gaze = (action[:, :2] / self._reach).clamp(-1, 1)
        choice = action[:, 2:].argmax(dim=1)
        self._paddle = catch.move_paddle(self._paddle, self._moves[choice], self.game)
        self.locations.append(gaze)
        row, size = len(self.locations), self.game.size
        ball = catch.ball_column(self._start, self._slope, row, size)
        self.frames.append(catch.screen(ball, row, self._paddle, self.game))
        seen = glimpse.hard_glimpse(self.frames[-1], gaze, self.task.size, self.task.scales, self.task.background) * self._area
        offset = torch.stack([ball, torch.full_like(ball, row)], dim=1) - glimpse.corners(gaze, self.task.size, size, size)
        self.hits.append(((offset >= 0) & (offset < self.task.size)).all(dim=1))
        last = row == self.horizon
        self._logits = torch.zeros_like(self._logits)  # whoever kept the last step's must not see it change
        reward = torch.zeros(len(ball), device=self.device)
        if last:
            caught = catch.is_caught(ball, self._paddle, self.game)
            self._logits = SURE * indicators(caught.long(), 2)
            reward = caught.float()
        self._count(action, last)
        moved = indicators(choice, len(catch.MOVES))
        return Step(self._observe(seen.flatten(1), gaze, moved), reward, torch.full_like(self.hits[-1], last), self._logits)

    def loss(self) -> Tensor:
        """Nothing learns here but the agent: zero."""
        return torch.zeros((), device=self.device)

    @property
    def state(self) -> Tensor:
        """All that matters to how a game ends, for a critic: [B, 2 size + T] indicators. Ask before the last frame.

        How many columns to the right of the paddle the ball will come down (-size to size - 1), and the frame's number.
        """
        size, frame = self.game.size, len(self.locations)
        landing = catch.ball_column(self._start, self._slope, self.horizon, size)
        offset = self._offsets[landing - self._paddle + size]
        return torch.cat([offset, self._clock[frame].expand(len(offset), -1)], dim=1)

    @property
    def right(self) -> Tensor:
        """Which balls were caught, [B] bool. Ask after the last frame."""
        return self._logits.argmax(dim=1) == self.labels

    @property
    def truth_by_look(self) -> Tensor:
        """The label at each frame, [B, T]."""
        return self.labels[:, None].expand(-1, self.horizon)

    @property
    def images(self) -> Tensor:
        """The last frame with the ball's earlier places in grey, [B, 1, size, size] uint8."""
        trail = torch.stack(self.frames).amax(dim=0)
        trail[:, :, -1] = self.frames[-1][:, :, -1]  # the paddle leaves none
        return torch.maximum(trail // 3, self.frames[-1])

    @property
    def counts(self) -> Counts:
        """Totals since the world was made; `on_target` counts frames in which the ball lay within the finest patch."""
        games, frames, caught, unique, clipped, hits, broken = self._tally.tolist()
        if broken:
            raise ValueError(NOT_FINITE)
        return Counts(games, frames, caught, frames * self.task.scales * self.task.size**2, unique, clipped, hits)

    @property
    def logits(self) -> Tensor:
        """What has come of the games, [B, 2]; zeros before their end."""
        return self._logits

    def render(self, row: int) -> NDArray[np.uint8]:
        """One game's screen with the gaze's path, enlarged: [H', W', 3]."""
        path = torch.stack([gaze[row] for gaze in self.locations]) if self.locations else torch.zeros(0, 2)
        empty = torch.zeros(1, self.game.size, self.game.size, dtype=torch.uint8)
        return scan_path(self.images[row] if self.frames else empty, path, self.task.size, self.task.scales)

    def reseed(self, seed: int) -> None:
        """Start the shuffled pass afresh."""
        self._pass.reseed(seed)

    def state_dict(self) -> dict[str, Tensor]:
        """Where the shuffled pass stands, and the counts. Take it between episodes."""
        return {**self._pass.state_dict(), "tally": self._tally.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self._pass.load_state_dict(state)
        self._tally = state["tally"].to(self.device, copy=True)  # which goes on; the caller's stands

    def _observe(self, seen: Tensor, gaze: Tensor, moved: Tensor) -> Tensor:
        frames = len(self.locations)
        clock = self._clock[frames] if frames < self.horizon else torch.zeros_like(self._clock[0])
        return torch.cat([seen, gaze, moved, clock.expand(len(gaze), -1)], dim=1)

    def _count(self, action: Tensor, last: bool) -> None:
        self._tally[1] += len(action)
        self._tally[4] += (action[:, :2].abs() > self._reach).any(dim=1).sum()
        self._tally[5] += self.hits[-1].sum()
        if last:
            path = torch.stack(self.locations, dim=1)
            unique = glimpse.unique_pixels(path, self.task.size, self.task.scales, self.game.size, self.game.size)
            self._tally[0] += len(action)
            self._tally[2] += self._logits.argmax(dim=1).sum()
            self._tally[3] += unique

    def _check(self, action: Tensor) -> None:
        if not hasattr(self, "locations"):
            raise ValueError("step() before reset(): call reset() to start the games")
        if len(self.locations) == self.horizon:
            raise ValueError(f"step() after the last of {self.horizon} frames: call reset() to start new games")
        broken = not_finite(action, len(self.labels), self, NOT_FINITE)
        if broken is not None:
            self._tally[6] += broken
