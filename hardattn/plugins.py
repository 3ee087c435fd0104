"""From an agent's name to its class: one of ours, or `package.module:Class` from the current folder or anything installed."""

import dataclasses
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from hardattn.agents import AGENTS
from hardattn.envs.errors import HardattnError, UsageError, unknown

METHODS = {
    "begin": "begin(batch_size) -> memory",
    "act": "act(observation, memory, greedy=False) -> (action, memory)",
    "update": "update(world) -> dict[str, float]",
    "state_dict": "state_dict() -> dict",
    "load_state_dict": "load_state_dict(state)",
}


def agent_class(name: str) -> Any:
    """The class behind an agent's name. Raises UsageError if it is unknown, cannot be imported or lacks a method."""
    if ":" not in name:
        if name not in AGENTS:
            raise unknown("agent", name, AGENTS, "your own class is given as module:Class")
        return import_object(AGENTS[name])
    found = import_object(name)
    if not inspect.isclass(found):
        raise UsageError(f"agent {name}: it is a {type(found).__name__}, wanted a class")
    missing = [signature for method, signature in METHODS.items() if not callable(getattr(found, method, None))]
    if missing:
        raise UsageError(
            f"agent {name} lacks {'; '.join(missing)}. Add what is missing; `hardattn check {name}` runs the whole contract"
        )
    return found


def import_object(path: str) -> Any:
    """The object at "package.module:Name", the current folder searched first. Raises UsageError naming what is not there."""
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(f"{path}: there is no module '{error.name}' in {here} or among the installed packages") from error
        raise HardattnError(f"{path}: importing {module_name} failed: {error}") from error
    except Exception as error:  # whatever a user's module does at import
        raise HardattnError(f"{path}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise unknown("name in " + module_name, attribute, classes or ["(no class at all)"])
    return getattr(module, attribute)


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
