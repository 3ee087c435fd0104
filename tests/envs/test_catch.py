"""The laws of Catch against a slow reference, its floor and its ceiling, and its world's contract."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hardattn.agents.base import collect
from hardattn.agents.fixed import Centre, Random
from hardattn.envs import catch
from hardattn.envs.catch import Games, draw_games
from hardattn.envs.catch_world import CatchWorld
from hardattn.envs.errors import UsageError
from hardattn.envs.glimpse import to_locations
from hardattn.envs.task_data import fixed_data
from hardattn.envs.tasks import CatchConfig, get_task

TASK, GAME = get_task("catch"), CatchConfig()


def fall_slowly(column: float, slope: float, rows: int, size: int) -> list[int]:
    """A ball frame by frame: a step, and at a wall back by what it went beyond."""
    seen, x, dx = [], column, slope
    for _ in range(rows):
        x += dx
        if x < 0:
            x, dx = -x, -dx
        if x > size - 1:
            x, dx = 2 * (size - 1) - x, -dx
        seen.append(int(x + 0.5))
    return seen


def test_balls_fall_as_the_slow_reference_has_it() -> None:
    games = draw_games(GAME, 5, 200)
    start, slope, _ = games.starts.double().unbind(dim=1)
    fast = torch.stack([catch.ball_column(start, slope, row, 24) for row in range(1, 24)], dim=1)
    slow = [fall_slowly(float(x), float(dx), 23, 24) for x, dx in zip(start, slope, strict=True)]
    assert fast.tolist() == slow
    assert catch.ball_column(torch.tensor([0.0]), torch.tensor([-1.0]), 3, 24).tolist() == [3]  # off the left wall


def test_its_state_tells_where_the_ball_comes_down_and_how_far_that_is_from_the_paddle() -> None:
    games = Games(torch.tensor([[3.0, 0, 10], [0, 1, 0], [0, -0.5, 0]]))  # straight down, across, off the wall at once
    world = CatchWorld(TASK, games, batch_size=3)
    world.reset(torch.arange(3))
    columns = []
    for _ in range(world.horizon):
        state = world.state
        assert state.shape == (3, world.observation_space.state) and bool((state.sum(dim=1) == 2).all())
        columns.append((state[:, :48].argmax(dim=1) - 24).tolist())
        assert state[:, 48:].argmax(dim=1).tolist() == [len(columns) - 1] * 3
        world.step(torch.tensor([[0.0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]))  # left, stay, right
    assert columns[0] == [3 - 10, 23, 12] and columns[4] == [3 - 6, 23, 12 - 4]  # 11.5 falls on column 12
    assert columns[-1] == [3, 23, 12 - 22]


def test_angles_on_paper() -> None:
    assert catch.slope(torch.tensor([0.0, 45.0, -45.0, 30.0])).tolist() == pytest.approx([0, 1, -1, 0.5 / 0.5**0.5])
    slopes = draw_games(GAME, 0, 10_000).starts[:, 1]
    assert slopes.abs().max() <= 1 and slopes.mean().abs() < 0.02


def test_the_paddle_stops_at_the_walls_and_meets_two_columns() -> None:
    paddle = torch.tensor([0, 22, 10])
    assert catch.move_paddle(paddle, torch.tensor(-1), GAME).tolist() == [0, 21, 9]
    assert catch.move_paddle(paddle, torch.tensor(1), GAME).tolist() == [1, 22, 11]
    ball = torch.tensor([9, 10, 11, 12])
    assert catch.is_caught(ball, torch.full((4,), 10), GAME).tolist() == [False, True, True, False]


def test_a_screen_holds_one_ball_and_one_paddle() -> None:
    picture = catch.screen(torch.tensor([3, 0]), 5, torch.tensor([22, 0]), GAME)
    assert picture.shape == (2, 1, 24, 24) and picture.dtype == torch.uint8
    assert picture[0, 0].nonzero().tolist() == [[5, 3], [23, 22], [23, 23]]
    assert catch.screen(torch.tensor([22]), 23, torch.tensor([22]), GAME)[0, 0].nonzero().tolist() == [[23, 22], [23, 23]]


def play(games: Games, move: Callable[[CatchWorld], torch.Tensor]) -> float:
    """The share that a paddle catches whose scores `move(world)` gives."""
    world = CatchWorld(TASK, games, batch_size=len(games))
    world.reset(torch.arange(len(games)))
    for _ in range(world.horizon):
        scores = move(world)
        step = world.step(torch.cat([torch.zeros(len(games), 2), scores], dim=1))
    return float(step.reward.mean())


def test_the_random_floor_is_what_random_paddles_catch() -> None:
    games = draw_games(GAME, 6, 20_000)
    generator = torch.Generator().manual_seed(0)
    share = play(games, lambda world: torch.rand(len(games), 3, generator=generator))
    assert share == pytest.approx(catch.random_floor(GAME), abs=0.008)  # four standard errors
    assert catch.random_floor(GAME) == pytest.approx(2 / 24, abs=0.01)  # by hand: 2 of 24 columns


def test_whoever_knows_the_landing_catches_every_ball() -> None:
    games = draw_games(GAME, 7, 2_000)
    start, slope, _ = games.starts.unbind(dim=1)
    landing = catch.ball_column(start, slope, 23, 24)

    def go(world: CatchWorld) -> torch.Tensor:
        if not world.locations:
            return torch.tensor([1.0, 0, 0]).expand(len(games), 3)  # the first frame is not seen yet
        target = landing.clamp(max=22)
        return torch.stack([world._paddle == target, world._paddle > target, world._paddle < target], dim=1).float()

    assert play(games, go) == 1
    assert catch.full_information_best(GAME) == pytest.approx(1)
    lazy = CatchConfig(size=5, paddle=1, angle=0)  # a ball straight down, 3 moves: two of 25 pairs are four columns apart
    assert catch.full_information_best(lazy) == pytest.approx(1 - 2 / 25)


def test_who_never_looks_does_best_at_a_wall_or_anywhere() -> None:
    straight = CatchConfig(size=24, paddle=2, angle=0)
    assert catch.blind_best(straight) == pytest.approx(2 / 24)
    assert catch.landings(GAME, angles=1001).sum() == pytest.approx(1)
    assert catch.blind_best(GAME) < 0.12


def test_games_are_the_same_for_everybody_and_test_games_others() -> None:
    assert fixed_data(TASK, "test").sha256() == fixed_data(TASK, "test").sha256()
    assert fixed_data(TASK, "test").sha256() != fixed_data(TASK, "validation").sha256()
    assert len(fixed_data(TASK, "test")) == 10_000
    with pytest.raises(UsageError, match="did you mean 'test'"):
        fixed_data(TASK, "tset")


def new_world(batch_size: int = 8, **settings: object) -> CatchWorld:
    return CatchWorld(TASK, draw_games(GAME, 1, 64), batch_size=batch_size, **settings)  # type: ignore[arg-type]


def test_the_gaze_sees_the_ball_where_it_falls() -> None:
    world = CatchWorld(TASK, Games(torch.tensor([[10.0, 0.0, 3.0]])), batch_size=1)
    world.reset()
    gaze = to_locations(torch.tensor([[10.0, 1.0]]), 24, 24)
    step = world.step(torch.cat([gaze, torch.tensor([[0.0, 1, 0]])], dim=1))
    parts = world.observation_space.split(step.observation)
    assert parts["glimpse"].shape == (1, 3, 1, 6, 6)
    assert parts["glimpse"][0, 0].sum() == 1 and bool(world.hits[0])  # one white pixel
    # A coarse pixel counts the white ones that it covers: the ball is 1 at every scale.
    assert parts["glimpse"][0, 1].sum() == pytest.approx(1) and parts["glimpse"][0, 2].sum() == pytest.approx(1)
    assert int(world._paddle) == 2 and parts["clock"][0].argmax() == 1


def test_an_episode_pays_at_its_end_and_says_what_came_of_it() -> None:
    world = new_world()
    rollout = collect(Random(world.observation_space, world.action_space), world)
    assert rollout.observations.shape == (8, 23, 108 + 2 + 3 + 23)
    assert not rollout.rewards[:, :-1].any() and not rollout.logits[:, :-1].any()
    assert torch.equal(rollout.logits[:, -1].argmax(dim=1).float(), rollout.rewards[:, -1])
    counts = world.counts
    assert (counts.episodes, counts.steps, counts.correct) == (8, 8 * 23, int(rollout.rewards.sum()))
    assert float(world.loss()) == 0 and world.images.shape == (8, 1, 24, 24)


def test_a_middle_action_stays() -> None:
    world = new_world()
    world.reset(torch.arange(8))
    before = world._paddle.clone()
    agent = Centre(world.observation_space, world.action_space)
    world.step(agent.act(torch.zeros(8, 1), 0)[0])
    assert torch.equal(world._paddle, before)


def test_a_batch_goes_on_to_the_bit_and_repeats_play_the_same_game() -> None:
    one, other = new_world(repeats=2), new_world(repeats=2)
    one.reset()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.reset(), other.reset()) and torch.equal(one.examples, other.examples)
    assert torch.equal(one.examples[::2], one.examples[1::2])


def test_mistakes_are_named() -> None:
    world = new_world()
    with pytest.raises(ValueError, match="step\\(\\) before reset"):
        world.step(torch.zeros(8, 5))
    world.reset()
    with pytest.raises(ValueError, match="wanted floating point \\[8, 5\\]"):
        world.step(torch.zeros(8, 3))
    with pytest.raises(ValueError, match="it carries a gradient"):
        world.step(torch.zeros(8, 5, requires_grad=True))
    with pytest.raises(ValueError, match="NaN or infinity"):
        world.step(torch.full((8, 5), torch.nan))
    for wrong in ({"batch_size": 65}, {"batch_size": 3, "repeats": 2}):
        with pytest.raises(UsageError, match="batch_size"):
            new_world(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="angle=90"):
        CatchConfig(angle=90)
    with pytest.raises(UsageError, match="at least one game"):
        Games(torch.zeros(0, 3))
    for wrong in ({"targets": 7}, {"context": 4}, {"see_glimpse": True}, {"crop": 5}, {"reward": "clipped-linear"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            replace(TASK, **wrong)
    with pytest.raises(UsageError, match="a ball falls 15 rows"):
        CatchWorld(replace(TASK, catch=CatchConfig(size=16)), draw_games(GAME, 1, 4), batch_size=2)
    with pytest.raises(UsageError, match="no game of Catch"):
        CatchWorld(get_task("ram-mnist"), draw_games(GAME, 1, 4), batch_size=2)
