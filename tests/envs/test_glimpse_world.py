import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hardattn.agents.base import collect
from hardattn.agents.fixed import Centre, Random
from hardattn.agents.reinforce import Reinforce
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.glimpse import hard_glimpse
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.perception import RamPerception, weights_sha256
from hardattn.envs.tasks import PerceptionConfig, Task, get_task
from hardattn.envs.world import use_bf16
from hardattn.testing import small_world


def with_task(world: GlimpseWorld, **changes: Any) -> GlimpseWorld:
    """The same world under a changed task."""
    return GlimpseWorld(
        dataclasses.replace(world.task, **changes), world.dataset, world.network, batch_size=8, precision="fp32", learning=True
    )


def look_around(world: GlimpseWorld, seed: int = 0) -> list[Any]:
    random = torch.Generator().manual_seed(seed)
    world.reset(torch.arange(world.batch_size // world.repeats))
    return [world.step(torch.rand(world.batch_size, 2, generator=random) * 2 - 1) for _ in range(world.horizon)]


def test_observation_is_features_location_and_clock() -> None:
    world = small_world()
    first = world.reset()
    assert first.shape == (8, 16 + 2 + 3) == (8, world.observation_space.shape[0])
    assert first[:, -3:].tolist() == [[1, 0, 0]] * 8
    step = world.step(torch.full((8, 2), 0.5))
    assert step.observation[:, 16:].tolist() == [[0.5, 0.5, 0, 1, 0]] * 8
    assert not step.observation.requires_grad


def test_a_step_looks_where_it_is_told() -> None:
    world = small_world()
    world.reset(torch.arange(8))
    location = torch.rand(8, 2) * 2 - 1
    step = world.step(location)
    perception: Any = world.network
    glimpse = hard_glimpse(world.dataset.images[:8], location, 4)
    state = perception.look(None, glimpse, location)
    torch.testing.assert_close(step.logits, perception.read(state))


def test_a_retina_of_many_scales_sees_what_each_scale_by_itself_sees() -> None:
    world = with_task(small_world(), scales=3, see_glimpse=True)
    perception = RamPerception(world.task.perception, (3, 1, world.task.size, world.task.size), world.dataset.classes)
    world = GlimpseWorld(world.task, world.dataset, perception, batch_size=8, repeats=2)
    world.reset(torch.arange(4))
    location = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    observation = world.step(location).observation
    wanted = hard_glimpse(world.dataset.images[:4].repeat_interleave(2, dim=0), location, world.task.size, 3)
    torch.testing.assert_close(observation[:, -wanted[0].numel() :], wanted.flatten(1))


def test_episodes_end_together_at_the_horizon() -> None:
    dones = [bool(step.done.all()) for step in look_around(small_world())]
    assert dones == [False, False, True]


def test_confidence_gains_add_up_to_the_last_confidence_over_chance() -> None:
    world = small_world()
    steps = look_around(world)
    total = sum(step.reward for step in steps)
    final = steps[-1].logits.softmax(dim=1).gather(1, world.labels[:, None])[:, 0]
    torch.testing.assert_close(total, final - 0.25)


def test_evidence_gains_add_up_to_the_log_of_the_last_confidence() -> None:
    world = with_task(small_world(), reward="evidence-gain")
    steps = look_around(world)
    final = steps[-1].logits.log_softmax(dim=1).gather(1, world.labels[:, None])[:, 0]
    torch.testing.assert_close(sum(step.reward for step in steps), final - math.log(0.25))


@pytest.mark.parametrize("reward", ["correct", "clipped-linear"])
def test_other_rewards_come_with_the_last_look_alone(reward: str) -> None:
    steps = look_around(with_task(small_world(), reward=reward))
    assert not steps[0].reward.any() and not steps[1].reward.any()
    assert steps[-1].reward.any()


def test_loss_weighs_the_looks() -> None:
    world = with_task(small_world(), look_loss=0.5)
    logits = [step.logits for step in look_around(world)]
    first, second, last = (F.cross_entropy(one, world.labels) for one in logits)
    torch.testing.assert_close(world.loss(), (last + 0.5 * (first + second)) / 2)
    paper = with_task(small_world(), look_loss=0.0)
    logits = [step.logits for step in look_around(paper)]
    torch.testing.assert_close(paper.loss(), F.cross_entropy(logits[-1], paper.labels))


def test_loss_before_the_end_says_what_is_missing() -> None:
    world = small_world()
    world.reset()
    with pytest.raises(ValueError, match="after 0 of 3 looks"):
        world.loss()


def test_the_world_counts() -> None:
    world = small_world()
    centre = Centre(world.observation_space, world.action_space)
    rollout = collect(centre, world)
    correct = int((rollout.logits[:, -1].argmax(dim=1) == world.labels).sum())
    counts = world.counts
    assert (counts.episodes, counts.steps, counts.correct) == (8, 24, correct)
    assert counts.processed_pixels == 8 * 3 * 16
    assert counts.unique_pixels == 8 * 16  # the same 4x4 patch three times


def test_a_look_that_was_not_taken_is_not_counted_as_clipped() -> None:
    small = small_world()
    world = GlimpseWorld(small.task, small.dataset, small.network, batch_size=8, stop=True)
    world.reset()
    for _ in range(world.horizon):
        world.step(torch.tensor([[9.0, 9.0, 1.0]]).expand(8, 3))
    assert (world.counts.steps, world.counts.clipped, world.counts.unique_pixels) == (0, 0, 0)


def test_a_location_outside_is_clipped_and_counted() -> None:
    world = small_world()
    world.reset(torch.arange(8))
    action = torch.zeros(8, 2)
    action[0, 0], action[1, 1] = 3.0, -1.5
    world.step(action)
    assert world.locations[0][:2].tolist() == [[1.0, 0.0], [0.0, -1.0]]
    for _ in range(1, world.horizon):
        world.step(torch.zeros(8, 2))
    assert world.counts.clipped == 2


def test_a_dealt_batch_lies_in_the_same_memory_and_is_the_one_that_comes_next() -> None:
    """Otherwise a replayed update would show the same examples for ever."""
    world, plain = small_world(seed=3), small_world(seed=3)
    places = set()
    for _ in range(5):
        world.deal()
        world.reset()
        plain.reset()
        assert torch.equal(world.examples, plain.examples) and torch.equal(world.images, plain.images)
        places.add(world.examples.data_ptr())
    assert len(places) == 1
    with pytest.raises(HardattnError, match="plays one batch; add --set recorded=off"):
        world.reset()
    world.reseed(3)
    world.reset()  # nothing lies there any more


def test_stopping_freezes_the_belief_and_costs_nothing() -> None:
    world = small_world(stop=True)
    assert world.action_space.shape == (3,)
    world.reset(torch.arange(8))
    go, halt = torch.zeros(8, 3), torch.zeros(8, 3)
    halt[0, 2] = 1.0
    before = world.step(go).logits
    after = world.step(halt + 0.1 * torch.tensor([1.0, 1.0, 0.0])).logits
    last = world.step(torch.tensor([[0.9, 0.9, -1.0]]).expand(8, 3)).logits
    assert torch.equal(before[0], after[0]) and torch.equal(before[0], last[0])  # it stays stopped
    assert not torch.equal(before[1], after[1])
    assert world.counts.steps == 24 - 2
    assert world.counts.processed_pixels == 22 * 16


def test_who_stopped_sees_nothing_new() -> None:
    small = small_world()
    task = dataclasses.replace(small.task, see_glimpse=True)
    world = GlimpseWorld(task, small.dataset, small.network, batch_size=8, stop=True)
    first = world.reset(torch.arange(8))
    parts = world.observation_space.split(first)
    halt = torch.zeros(8, 3)
    halt[0, 2] = 1.0  # before the first look
    for place in (0.2, 0.4):
        seen = world.observation_space.split(world.step(halt + place * torch.tensor([1.0, 1.0, 0.0])).observation)
        for name in ("core", "location", "glimpse"):
            assert torch.equal(seen[name][0], parts[name][0])
            assert not torch.equal(seen[name][1], parts[name][1])


def test_repeats_show_each_image_side_by_side() -> None:
    world = small_world(repeats=4)
    world.reset()
    assert world.examples.unflatten(0, (2, 4)).unique(dim=1).shape == (2, 1)
    with pytest.raises(UsageError, match="multiple of repeats"):
        small_world(repeats=3)


def test_a_pass_shows_every_image_once_before_any_comes_back() -> None:
    world = small_world()
    seen = []
    for _ in range(8):
        world.reset()
        seen.append(world.examples)
    assert torch.cat(seen).sort().values.tolist() == list(range(64))


def test_row_b_of_a_batch_is_what_a_single_episode_sees() -> None:
    many, one = small_world(), small_world(1)
    path = torch.rand(3, 8, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    many.reset(torch.arange(8))
    rows = [many.step(action) for action in path]
    for b in (0, 5):
        one.reset(torch.tensor([b]))
        for t, action in enumerate(path):
            step = one.step(action[b : b + 1])
            torch.testing.assert_close(step.observation[0], rows[t].observation[b], atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(step.reward[0], rows[t].reward[b], atol=1e-6, rtol=1e-5)


def test_a_frozen_world_keeps_no_graph_and_a_learning_one_trains_every_weight() -> None:
    frozen, learning = small_world(), small_world(learning=True)
    look_around(frozen)
    assert not frozen.loss().requires_grad and not frozen.network.training
    look_around(learning)
    learning.loss().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in learning.network.parameters())


def test_the_agents_update_leaves_perception_alone() -> None:
    world = small_world(learning=True)
    before = weights_sha256(world.network)
    Reinforce(world.observation_space, world.action_space).update(world)
    assert weights_sha256(world.network) == before
    assert all(weight.grad is None for weight in world.network.parameters())


def test_a_soft_world_sends_the_gradient_to_the_action() -> None:
    world = small_world(attention="soft")
    world.reset(torch.arange(8))
    action = torch.zeros(8, 2, requires_grad=True)
    for _ in range(3):
        world.step(action)
    world.loss().backward()
    assert action.grad is not None and action.grad.abs().sum() > 0


def test_the_same_seed_repeats_and_another_differs() -> None:
    def play(seed: int) -> torch.Tensor:
        world = small_world(augment=0.5, seed=seed)
        agent = Random(world.observation_space, world.action_space, seed=seed)
        return collect(agent, world).logits

    assert torch.equal(play(1), play(1))
    assert not torch.equal(play(1), play(2))


def test_a_saved_world_goes_on_with_the_same_images() -> None:
    world, twin = small_world(augment=0.5), small_world(augment=0.5)
    for _ in range(3):  # the twin has gone another way before
        twin.reset()
    world.reset()
    twin.load_state_dict(world.state_dict())
    world.reset()
    twin.reset()
    assert torch.equal(world.examples, twin.examples)
    assert torch.equal(world.images, twin.images)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(8, 3), r"got torch.float32 \[8, 3\], wanted floating point \[8, 2\]"),
        (torch.zeros(8, 2, dtype=torch.int64), "got torch.int64"),
        (torch.zeros(8, 2, device="meta"), "tensor on meta, wanted one on cpu"),
    ],
)
def test_a_wrong_action_is_named(action: torch.Tensor, message: str) -> None:
    world = small_world()
    world.reset()
    with pytest.raises(ValueError, match=message):
        world.step(action)


def test_stepping_out_of_turn_is_refused() -> None:
    world = small_world()
    with pytest.raises(ValueError, match="before reset"):
        world.step(torch.zeros(8, 2))
    look_around(world)
    with pytest.raises(ValueError, match="after the last of 3 looks"):
        world.step(torch.zeros(8, 2))


@pytest.mark.parametrize("core", ["lstm", "rnn"])
@pytest.mark.parametrize("encoder", ["fc", "conv"])
def test_every_perception_learns_in_both_precisions(core: Any, encoder: Any) -> None:
    small = small_world()
    config = PerceptionConfig(core=core, encoder=encoder, core_width=16, glimpse_width=16)
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        perception = RamPerception(config, (1, 1, 4, 4), 4)
        world = GlimpseWorld(small.task, small.dataset, perception, batch_size=8, learning=True, precision=precision)
        agent = Centre(world.observation_space, world.action_space)
        optimizer = torch.optim.Adam(perception.parameters(), 1e-2)
        losses = []
        for _ in range(100):
            collect(agent, world, indices=torch.arange(8))
            losses.append(float(world.loss().detach()))
            optimizer.zero_grad()
            world.loss().backward()
            optimizer.step()
        assert losses[-1] < 0.3 * losses[0], precision


def test_precision_is_asked_for_or_found() -> None:
    assert use_bf16("bf16", torch.device("cpu")) and not use_bf16("fp32", torch.device("cpu"))
    assert use_bf16("auto", torch.device("cpu")) in (True, False)


def test_a_task_refuses_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="did you mean 'ram-mnist'"):
        get_task("ram-mnis")
    with pytest.raises(UsageError, match="num_glimpses=0"):
        Task(name="x", summary="", num_glimpses=0)
    with pytest.raises(UsageError, match="did you mean 'correct'"):
        Task(name="x", summary="", reward="corect")  # type: ignore[arg-type]


def test_observations_in_bf16_are_those_in_float32_rounded() -> None:
    exact, rounded = (small_world(precision="bf16", observes_bf16=asked) for asked in (False, True))
    indices = torch.arange(8)
    seen = [(exact.reset(indices), rounded.reset(indices))]
    for _ in range(3):
        action = torch.full((8, 2), 0.3)
        seen.append((exact.step(action).observation, rounded.step(action).observation))
    for one, other in seen:
        assert one.dtype == torch.float32 and other.dtype == torch.bfloat16
        assert torch.equal(one.bfloat16(), other)
    assert small_world(precision="fp32", observes_bf16=True).reset(indices).dtype == torch.float32
