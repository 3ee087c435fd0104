"""Several targets told in turn: what is asked at each look, what it pays, what it costs, and how it is measured."""

import pytest
import torch
import torch.nn.functional as F

from hardattn import evaluate
from hardattn.agents.fixed import Random
from hardattn.envs import rewards
from hardattn.envs.cells import State
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.gymnasium_env import GlimpseVectorEnv
from hardattn.envs.perception import RamPerception
from hardattn.envs.tasks import PerceptionConfig, Task

END, NONE = 3, -1
LABELS = torch.tensor([[0, 1, END], [2, END, NONE], [1, 1, END], [END, NONE, NONE]])
TASK = Task("turns", "for tests", size=4, num_glimpses=6, targets=3, reward="correct", perception=PerceptionConfig(core_width=16))


class Says(RamPerception):
    """Says what it is told to, or what it sees."""

    answers: torch.Tensor | None = None

    def read(self, state: State) -> torch.Tensor:
        """Class logits [B, K]."""
        return super().read(state) if self.answers is None else F.one_hot(self.answers, 4).float()


def new_world(labels: torch.Tensor = LABELS, batch_size: int = 4, **changes: object) -> GlimpseWorld:
    images = torch.randint(256, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.manual_seed(0)
    dataset = Dataset("rows", images, labels, 4)
    network = Says(TASK.perception, (1, 1, 4, 4), 4)
    return GlimpseWorld(TASK, dataset, network, batch_size=batch_size, precision="fp32", **changes)  # type: ignore[arg-type]


def say(world: GlimpseWorld, answers: list[list[int]]) -> torch.Tensor:
    """Play an episode in which perception says these classes after each target's looks; the rewards [B, T]."""
    world.reset(torch.arange(len(answers)))
    paid = []
    for t in range(world.horizon):
        assert isinstance(world.network, Says)
        world.network.answers = torch.tensor([row[t // 2] for row in answers])
        paid.append(world.step(torch.zeros(len(answers), 2)).reward)
    return torch.stack(paid, dim=1)


def test_pay_until_the_first_error_on_paper() -> None:
    right = torch.tensor([[True, True, True], [True, False, True], [False, True, True]])
    assert rewards.until_first_error(right).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert rewards.until_first_error(right).sum(dim=1).tolist() == [3, 1, 0]  # R_s = sum of R_j for j <= s


def test_the_world_pays_at_each_targets_last_look_until_the_first_error() -> None:
    world = new_world()
    paid = say(world, [[0, 1, END], [2, END, 0], [1, 0, END], [0, 0, 0]])
    assert paid.tolist() == [
        [0, 1, 0, 1, 0, 1],  # all told
        [0, 1, 0, 1, 0, 0],  # all told; after the end nothing is asked
        [0, 1, 0, 0, 0, 0],  # wrong in the middle: the end, though right, earns nothing
        [0, 0, 0, 0, 0, 0],  # wrong at once
    ]
    asked = LABELS >= 0
    said = torch.tensor([[0, 1, END], [2, END, 0], [1, 0, END], [0, 0, 0]])
    by_formula = rewards.until_first_error((said == LABELS) | ~asked) * asked
    assert torch.equal(paid[:, 1::2], by_formula)
    assert world.right.tolist() == [True, True, False, False] and world.counts.correct == 2


def test_each_look_is_asked_for_its_target() -> None:
    world = new_world()
    world.reset(torch.arange(4))
    assert world.truth_by_look[1].tolist() == [2, 2, END, END, NONE, NONE]


def test_the_loss_is_the_mean_over_what_is_asked() -> None:
    world = new_world(learning=True)
    world.reset(torch.arange(4))
    for _ in range(6):
        world.step(torch.zeros(4, 2))
    looks = torch.stack(world._logits[1:], dim=1)  # [B, T, K]
    total, weight = torch.zeros(()), 0.0
    for b in range(4):
        for t in range(6):
            truth = int(LABELS[b, t // 2])
            if truth >= 0:
                w = 1.0 if t % 2 else TASK.look_loss
                total, weight = total + w * F.cross_entropy(looks[b, t], torch.tensor(truth)), weight + w
    torch.testing.assert_close(world.loss(), total / weight)
    world.loss().backward()


def test_a_wrong_target_makes_the_whole_wrong() -> None:
    probabilities = F.one_hot(torch.tensor([[0, 1, END], [2, END, 0], [1, 0, END]]), 4).float()
    assert evaluate.is_wrong(probabilities, LABELS[:3]).tolist() == [False, False, True]
    world = new_world(LABELS.repeat(4, 1), batch_size=16)
    measured = evaluate.measure(Random(world.observation_space, world.action_space), world)
    assert measured.probabilities.shape == (16, 3, 4) and len(measured.error_by_look) == 6
    assert torch.equal(measured.wrong, ~world.right)
    assert measured.error_by_look[-1] == measured.error


def test_wrong_so_far_on_paper() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, NONE, NONE]])
    said = torch.tensor([[1, 0, 0, 1], [0, 1, 5, 5]])  # mends itself within each target; wrong at the first target's last look
    assert evaluate.wrong_so_far(said, truth, 2).tolist() == [[True, False, True, False], [False, True, True, True]]
    assert evaluate.wrong_so_far(said[:1], torch.zeros(1, 4, dtype=torch.int64), 4).tolist() == [[True, False, False, True]]


def test_gymnasium_says_whether_all_was_right() -> None:
    env = GlimpseVectorEnv(new_world())
    env.reset(seed=0)
    for _ in range(6):
        *_, info = env.step(torch.zeros(4, 2))
    assert info["final_info"]["correct"].shape == (4,) and info["final_info"]["label"].shape == (4, 3)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="2 label\\(s\\) an image; wanted targets=2"):
        new_world(LABELS[:, :2].clamp(min=0))
    with pytest.raises(UsageError, match="as many looks for each target"):
        Task("t", "s", num_glimpses=7, targets=3, reward="correct")
    with pytest.raises(UsageError, match="wanted correct"):
        Task("t", "s", num_glimpses=6, targets=3)
    with pytest.raises(UsageError, match="labels are"):
        new_world(torch.zeros(4, 1, dtype=torch.int64))
    for labels in ([[NONE, 1, 2]], [[0, NONE, 1]]):
        with pytest.raises(UsageError, match="wanted -1 at its end alone"):
            new_world(torch.tensor(labels * 2), batch_size=2)
