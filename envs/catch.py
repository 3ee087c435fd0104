"""Catch: a ball falls over a small screen, a paddle on the bottom row is to meet it (Mnih et al. 2014, section 4.2).

The paper leaves open at what angles balls fall and how they bounce. Here, as in a public re-run of the game: one row a frame,
sideways by sin(angle) / sin(45 degrees) columns, the angle uniform on both sides of straight down; side walls reflect. A ball
starts in any column of the top row, the paddle anywhere on the bottom row. The laws are pure functions; `Games` is a list of
starts.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import CatchConfig

MOVES = (0, -1, 1)  # stay, left, right: an action's scores in this order, so that a tie stays


@dataclass(frozen=True)
class Games:
    """Starts of games, each a column of the ball, its columns a row, and the left column of the paddle: [N, 3] float32."""

    starts: Tensor
    """[N, 3]."""
    classes: int = 2  # what a game can come to: 0 missed, 1 caught
    channels: int = 1
    boxes: None = None

    def __post_init__(self) -> None:
        if self.starts.ndim != 2 or self.starts.shape[1] != 3 or not len(self.starts):
            raise UsageError(f"games: got starts {list(self.starts.shape)}, wanted [N, 3] with at least one game")

    def __len__(self) -> int:
        return len(self.starts)

    def to(self, device: torch.device | str) -> "Games":
        """The same on another device."""
        return Games(self.starts.to(device))

    def sha256(self) -> str:
        """A fingerprint of every start, in order."""
        return hashlib.sha256(self.starts.cpu().numpy().tobytes()).hexdigest()


def draw_games(config: CatchConfig, seed: int, count: int) -> Games:
    """`count` random games, the same on every machine."""
    random = torch.Generator().manual_seed(seed)
    column = torch.randint(config.size, (count,), generator=random).float()
    angle = (2 * torch.rand(count, generator=random, dtype=torch.float64) - 1) * config.angle
    paddle = torch.randint(config.size - config.paddle + 1, (count,), generator=random).float()
    return Games(torch.stack([column, slope(angle).float(), paddle], dim=1))


def slope(angle: Tensor) -> Tensor:
    """Columns a row for a fall at `angle` degrees from straight down: 1 at 45 degrees."""
    return torch.sin(torch.deg2rad(angle)) / math.sin(math.pi / 4)


def ball_column(start: Tensor, slope: Tensor, row: int, size: int) -> Tensor:
    """The column [B] int64 of a ball `row` rows below its start, reflected by the walls at columns 0 and size - 1.

    Reflection folds a straight line: a ball at x columns stands where a triangle wave of period 2 (size - 1) does at x.
    """
    wall = size - 1
    folded = wall - ((start + row * slope).remainder(2 * wall) - wall).abs()
    return (folded + 0.5).floor().long()


def move_paddle(paddle: Tensor, move: Tensor, config: CatchConfig) -> Tensor:
    """The paddle's left column after a step of -1, 0 or 1; it stops at the walls."""
    return (paddle + move).clamp(0, config.size - config.paddle)


def screen(ball: Tensor, row: int, paddle: Tensor, config: CatchConfig) -> Tensor:
    """Ball columns [B], the ball's row and paddle columns [B] as a picture [B, 1, size, size] of uint8, 0 or 255."""
    picture = torch.zeros(len(ball), config.size, config.size, dtype=torch.uint8, device=ball.device)
    columns = torch.arange(config.size, device=ball.device)
    distance = columns - paddle[:, None]
    picture[:, -1] = ((distance >= 0) & (distance < config.paddle)).byte() * 255
    picture[:, row] |= (columns == ball[:, None]).byte() * 255
    return picture[:, None]


def is_caught(ball: Tensor, paddle: Tensor, config: CatchConfig) -> Tensor:
    """Whether a ball that has come down lies on the paddle: both [B] -> [B] bool."""
    return (ball >= paddle) & (ball < paddle + config.paddle)


def landings(config: CatchConfig, angles: int = 20_001) -> Tensor:
    """How likely a ball comes down in each column: [size], exact over start columns, on a fine grid of angles."""
    grid = (2 * (torch.arange(angles, dtype=torch.float64) + 0.5) / angles - 1) * config.angle
    starts = torch.arange(config.size, dtype=torch.float64)
    columns = ball_column(starts[:, None], slope(grid), config.size - 1, config.size)
    return columns.flatten().bincount(minlength=config.size).double() / columns.numel()


def random_floor(config: CatchConfig) -> float:
    """The share of balls that a paddle with uniformly random moves catches, 0 to 1: its Markov chain, multiplied out."""
    places = config.size - config.paddle + 1
    where = torch.arange(places)
    chain = sum(torch.eye(places, dtype=torch.float64)[move_paddle(where, torch.tensor(move), config)] for move in MOVES) / 3
    paddle = torch.full((places,), 1 / places, dtype=torch.float64) @ torch.linalg.matrix_power(chain, config.size - 1)
    return float((paddle * _catching(config)).sum())


def blind_best(config: CatchConfig) -> float:
    """The share that a paddle catches which never looks and waits at the best place, 0 to 1."""
    return float(_catching(config).max())


def full_information_best(config: CatchConfig) -> float:
    """The share that a paddle catches which knows each ball's landing after its first, blind move: it goes there and waits; 0 to 1.

    A game is lost only where no place that meets the ball is near enough.
    """
    places, moves = config.size - config.paddle + 1, config.size - 2
    paddle, landing = torch.arange(places), torch.arange(config.size)
    targets = landing[:, None] - torch.arange(config.paddle)  # [size, paddle]: left columns that meet the ball
    near = ((targets[:, None] - paddle[None, :, None]).abs() <= moves) & (targets[:, None] >= 0) & (targets[:, None] < places)
    return float((near.any(dim=-1).double().mean(dim=1) * landings(config)).sum())


def _catching(config: CatchConfig) -> Tensor:
    """How likely a paddle that stands at each place meets the ball, [places]."""
    return landings(config).unfold(0, config.paddle, 1).sum(dim=1)
