"""From an agent's name to its class: one of ours, of an installed package, or `package.module:Class` from anywhere importable."""

import dataclasses
import importlib
import inspect
import sys
from typing import Any

from hardattn.agents import AGENTS
from hardattn.envs.errors import HardattnError, UsageError, unknown
from hardattn.envs.importing import import_object as import_object
from hardattn.envs.importing import installed_agents
from hardattn.envs.world import Attention

METHODS = {
    "begin": "begin(batch_size) -> memory",
    "act": "act(observation, memory, greedy=False) -> (action, memory)",
    "update": "update(world) -> dict of numbers",
    "state_dict": "state_dict() -> dict",
    "load_state_dict": "load_state_dict(state)",
}


def agent_class(name: str) -> Any:
    """The class behind an agent's name. Raises UsageError if it is unknown, cannot be imported or lacks a method."""
    if ":" not in name:
        if name in AGENTS:
            return _installed(AGENTS[name])
        others = installed_agents()  # asked only here: it looks into every installed package
        if name in others:
            return _checked(name, _installed(others[name]))
        remedy = "your own class is given as module:Class, stable-baselines3's as sb3:PPO"
        raise unknown("agent", name, [*AGENTS, *others], remedy)
    return _checked(name, _sb3_class(name.removeprefix("sb3:")) if name.startswith("sb3:") else import_object(name))


def is_ours(name: str) -> bool:
    """Whether an agent's name stands for code of this package or of stable-baselines3, which a saved run may name by itself."""
    return name in AGENTS or (name.startswith("sb3:") and "." not in name)


def _installed(path: str) -> Any:
    """The object at "module:Name" in an installed package; the current folder is not searched, for nobody asked for its code."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise HardattnError(f"{path}: importing it failed: {error}; reinstall the package that declares it") from error


def _checked(name: str, found: Any) -> Any:
    """The class itself, or an agent around it if it is an algorithm of stable-baselines3. UsageError if it lacks a method."""
    if not inspect.isclass(found):
        raise UsageError(f"agent {name}: it is a {type(found).__name__}, wanted a class")
    if _is_sb3_style(found):
        from hardattn.agents.sb3 import wrap

        return wrap(found)  # type: ignore[arg-type]  # a class can be hashed
    missing = [signature for method, signature in METHODS.items() if not callable(getattr(found, method, None))]
    if missing:
        raise UsageError(
            f"agent {name} lacks {'; '.join(missing)}. Add what is missing; `hardattn check {name}` runs the whole contract"
        )
    return found


def _sb3_class(name: str) -> Any:
    """PPO, SAC, ... of stable-baselines3, or any "package.module.Class" of its style."""
    if "." in name:
        module, _, attribute = name.rpartition(".")
        return import_object(f"{module}:{attribute}")
    import stable_baselines3

    known = [key for key, value in vars(stable_baselines3).items() if _is_sb3_style(value)]
    if name not in known:
        raise unknown("algorithm of stable-baselines3", name, known, "another package's is given as sb3:package.module.Class")
    return getattr(stable_baselines3, name)


def _is_sb3_style(found: Any) -> bool:
    """Whether this is an algorithm class of stable-baselines3; nothing is imported for the question."""
    base = sys.modules.get("stable_baselines3.common.base_class")
    return base is not None and inspect.isclass(found) and issubclass(found, base.BaseAlgorithm)


def make_agent(name: str, world: Any, *, config: Any = None, seed: int = 0) -> Any:
    """An agent for a world. Raises HardattnError if the class's constructor refuses."""
    found = agent_class(name)
    try:
        return found(world.observation_space, world.action_space, config=config, device=world.device, seed=seed)
    except HardattnError:
        raise
    except Exception as error:
        wanted = "(observation_space, action_space, *, config, device, seed)"
        raise HardattnError(
            f"agent {name}: its constructor failed: {type(error).__name__}: {error}; it is called with {wanted}"
        ) from error


def attention(name: str) -> Attention:
    """The attention that an agent learns through: "soft" for a class that says so, else "hard"."""
    return "soft" if getattr(agent_class(name), "attention", "hard") == "soft" else "hard"


def takes_bf16(agent: Any) -> bool:
    """Whether this agent learns from observations in bf16 too: if its class says so itself, for a subclass may be otherwise."""
    return "takes_bf16" in vars(type(agent)) and bool(agent.takes_bf16)


def recordable(agent: Any) -> bool:
    """Whether this agent's update may be recorded: if its class says so itself, for a subclass may decide by Python."""
    return "recordable" in vars(type(agent)) and bool(agent.recordable)


def least_repeats(name: str) -> int:
    """How often each example must be shown for this agent to learn: 1, or the class's own number, as a population's."""
    return int(getattr(agent_class(name), "repeats", 1))


def default_config(name: str) -> Any:
    """The agent's settings at their defaults, or None for a class without a Config. UsageError if Config is something else."""
    config = getattr(agent_class(name), "Config", None)
    if config is None:
        return None
    wanted = "wanted a dataclass whose fields all have defaults"
    if not (inspect.isclass(config) and dataclasses.is_dataclass(config)):
        raise UsageError(f"agent {name}: Config is {config!r}, {wanted}")
    try:
        return config()
    except TypeError as error:
        raise UsageError(f"agent {name}: Config() failed: {error}; {wanted}") from error
