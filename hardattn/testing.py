"""Contract tests for agents, ours and anybody's: `hardattn check NAME`, or `check_agent` from a test of your own."""

import copy
import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardattn import plugins, results
from hardattn.agents.base import collect
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.probes import PROBES, ProbeWorld
from hardattn.envs.task_data import new_network
from hardattn.envs.tasks import PerceptionConfig, Task
from hardattn.envs.world import Attention
from hardattn.recorded import WARM_UP, Recorded

POLICY_PROBES = ("left", "cue", "late")  # "constant" pays whatever is done: it is for critics
PROBE_UPDATES = 400
PROBE_REPEATS = 4
SOLVED = 0.8  # share of the way from the blind best to the best


@dataclass(frozen=True)
class Finding:
    """The outcome of one test; an `advice` that fails is worth knowing but breaks no contract."""

    test: str
    passed: bool
    note: str = ""
    advice: bool = False


def small_world(batch_size: int = 8, seed: int = 0, task: Mapping[str, Any] = {}, **changes: Any) -> GlimpseWorld:
    """A GlimpseWorld over 64 random 12x12 images of 4 classes, with a small perception; made in milliseconds.

    `task` holds fields of the Task that shall differ, `changes` are arguments of the world.
    """
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (64, 1, 12, 12), generator=random, dtype=torch.uint8)
    boxes = torch.tensor([[[2.0, 2.0, 8.0, 8.0]]]).repeat(64, 1, 1)
    dataset = Dataset("noise", images, torch.arange(64) % 4, 4, boxes)
    fields: dict[str, Any] = {"size": 4, "num_glimpses": 3, "perception": PerceptionConfig(core_width=16, glimpse_width=16)}
    setup = Task(name="small", summary="for tests", **(fields | dict(task)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        perception = new_network(setup, dataset)
    return GlimpseWorld(setup, dataset, perception, batch_size=batch_size, seed=seed, **({"precision": "fp32"} | changes))


def check_agent(name: str, tick: Callable[[str], None] = lambda what: None) -> list[Finding]:
    """Run every test on an agent given by name or as module:Class. Raises UsageError if there is no such class."""
    findings = []
    tests = [_acts, _keeps_hands_off, _repeats, _greedy_repeats, _updates, _resumes]
    for test in [*tests, _replays] if "recordable" in vars(plugins.agent_class(name)) else tests:
        title = (test.__doc__ or "").strip().rstrip(".")
        tick(title)
        findings.append(_run(test, name, title))
    if all(finding.passed or finding.advice for finding in findings):
        for probe in POLICY_PROBES:
            tick(f"probe {probe}")
            findings.append(_learns(name, probe))
    return findings


def _run(test: Callable[[str], Iterator[str]], name: str, title: str) -> Finding:
    advice = test is _greedy_repeats
    try:
        return next((Finding(title, False, problem, advice) for problem in test(name)), Finding(title, True))
    except HardattnError as error:
        return Finding(title, False, str(error), advice)
    except Exception as error:  # whatever a stranger's agent raises is a finding
        return Finding(title, False, f"{type(error).__name__}: {error}", advice)


def _training_world(name: str, **changes: Any) -> GlimpseWorld:
    """A small world as the study would build it to train this agent."""
    return small_world(attention=plugins.attention(name), repeats=plugins.least_repeats(name), **changes)


def _new(name: str, world: Any, seed: int = 0) -> Any:
    agent = plugins.make_agent(name, world, config=plugins.default_config(name), seed=seed)
    if hasattr(agent, "watch"):  # as agents.base.collect does
        agent.watch(world)
    return agent


def _acts(name: str) -> Iterator[str]:
    """Acts in the world's shape, whatever the batch size."""
    for batch in (8, 1, 5):
        world = small_world(batch)
        agent, observation = _new(name, world), world.reset()
        memory = agent.begin(batch)
        for _ in range(world.horizon):
            answer = agent.act(observation, memory)
            if not isinstance(answer, tuple) or len(answer) != 2:
                yield f"act() returned {type(answer).__name__}, wanted a pair (action, memory)"
                return
            action, memory = answer
            yield from _wrong_action(action, batch, world)
            observation = world.step(action).observation


def _wrong_action(action: Any, batch: int, world: GlimpseWorld) -> Iterator[str]:
    wanted = f"a float tensor [{batch}, {world.action_space.shape[0]}] on {world.device}"
    if not isinstance(action, Tensor):
        yield f"act() returned a {type(action).__name__} as action, wanted {wanted}"
    elif tuple(action.shape) != (batch, *world.action_space.shape) or not action.is_floating_point():
        yield f"act() returned {action.dtype} {list(action.shape)}, wanted {wanted}"
    elif action.device.type != world.device.type:
        yield f"act() returned a tensor on {action.device}, wanted {wanted}"
    elif action.requires_grad:
        yield "act() returned an action that carries a gradient; act under torch.no_grad(), and keep the graph to update()"
    elif not bool(action.isfinite().all()):
        yield "act() returned NaN or infinity"


def _keeps_hands_off(name: str) -> Iterator[str]:
    """Leaves the observation as it was."""
    world = small_world()
    agent, observation = _new(name, world), world.reset()
    before = observation.clone()
    agent.act(observation, agent.begin(len(observation)))
    if not torch.equal(before, observation):
        yield "act() changed the observation in place; copy it first"


def _repeats(name: str) -> Iterator[str]:
    """The same seed repeats to the bit."""
    paths = []
    for _ in range(2):
        world = _training_world(name)
        agent = _new(name, world, seed=3)
        agent.update(world)
        paths.append(collect(agent, world).actions)
    if not torch.equal(*paths):
        yield "two agents of seed 3 acted differently; draw everything from a torch.Generator made from the seed"


def _greedy_repeats(name: str) -> Iterator[str]:
    """Greedy actions are the same each time."""
    world = small_world()
    agent, observation = _new(name, world), world.reset()
    first, _ = agent.act(observation, agent.begin(len(observation)), True)
    second, _ = agent.act(observation, agent.begin(len(observation)), True)
    if not torch.equal(first, second):
        yield "act(..., greedy=True) still samples; its error will be that of a sampled policy"


def _updates(name: str) -> Iterator[str]:
    """update() plays episodes and reports finite numbers."""
    world = _training_world(name, learning=True)
    agent = _new(name, world)
    if plugins.takes_bf16(agent):
        agent.update(_training_world(name, learning=True, precision="bf16", observes_bf16=True))
    metrics = agent.update(world)
    if not isinstance(metrics, Mapping):
        yield f"update() returned {type(metrics).__name__}, wanted a dict of numbers"
        return
    for key, value in metrics.items():
        number = isinstance(value, float | int) or (isinstance(value, Tensor) and value.numel() == 1)
        if not isinstance(key, str) or not number or not math.isfinite(value):
            yield f"update() reported {key!r}: {value!r}, wanted a finite number"
    if world.counts.episodes < world.batch_size:
        played = f"update() finished {world.counts.episodes} episodes"
        yield f"{played}, wanted at least one batch of {world.batch_size}; play to the horizon"
        return
    world.loss().backward()  # perception can learn from what was played last


def _resumes(name: str) -> Iterator[str]:
    """Saved and loaded, it goes on as if nothing had happened."""
    world = _training_world(name)
    agent = _new(name, world)
    agent.update(world)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agent.safetensors"
        results.write_state(file, {"agent": agent.state_dict()})
        state = results.read_state(file)["agent"]
    twin_world = _training_world(name)
    twin_world.load_state_dict(copy.deepcopy(world.state_dict()))
    twin = _new(name, twin_world, seed=99)
    twin.load_state_dict(state)
    for one, where in ((agent, world), (twin, twin_world)):
        one.update(where)
    if not torch.equal(collect(agent, world).actions, collect(twin, twin_world).actions):
        yield "after load_state_dict() it acted differently; save optimiser and random generator too"


def _replays(name: str) -> Iterator[str]:
    """Recorded and replayed, update() does what it does from Python."""
    actions = []
    for replayed in (True, False):
        world = _training_world(name, learning=True)
        agent = _new(name, world, seed=3)
        update = Recorded(functools.partial(agent.update, world), [world.generator, agent.generator], world.device)
        for round in range(WARM_UP + 4):
            world.progress = round / (WARM_UP + 4)
            world.deal()
            agent.schedule(world.progress)
            update() if replayed else agent.update(world)
        if update.refused:
            yield f"recordable = True, but update() cannot be recorded: {update.refused}"
            return
        world.deal()
        actions.append(collect(agent, world).actions)
    if not torch.equal(*actions):
        yield "replayed, it learned otherwise: a replay repeats nothing that Python decides; keep its state in tensors"


def _learns(name: str, probe: str) -> Finding:
    """Advice: whether it solves a probe world."""
    title = f"learns the probe '{probe}': {PROBES[probe].tests}"
    try:
        reached = probe_return(name, probe)
    except Exception as error:  # as above
        return Finding(title, False, f"{type(error).__name__}: {error}", advice=True)
    wanted = solved_at(probe)
    return Finding(title, reached >= wanted, f"return {reached:.2f}, solved at {wanted:.2f}", advice=True)


def solved_at(probe: str) -> float:
    """The return at which a probe counts as solved."""
    world = PROBES[probe]
    return world.blind + SOLVED * (world.best - world.blind) if world.best > world.blind else SOLVED * world.best


def probe_return(agent: str | Any, probe: str, updates: int = PROBE_UPDATES, seed: int = 0) -> float:
    """Train an agent (a name, or a function of a world that makes one) on a probe; the mean return of its greedy policy."""
    attention: Attention = plugins.attention(agent) if isinstance(agent, str) else "hard"
    world = ProbeWorld(probe, batch_size=64, repeats=PROBE_REPEATS, attention=attention, seed=seed)
    if isinstance(agent, str):
        config = plugins.default_config(agent)
        if config is not None and hasattr(config, "learning_rate") and not agent.startswith("sb3:"):
            config = replace(config, learning_rate=max(5e-3, config.learning_rate))  # tiny worlds bear a brisk step
        learner = plugins.make_agent(agent, world, config=config, seed=seed)
    else:
        learner = agent(world)
    for update in range(updates):
        world.progress = update / updates
        learner.update(world)
    rollout = collect(learner, world, greedy=True)
    return float(rollout.rewards.sum(dim=1).mean())
