"""What Gymnasium calls to make our environments, and the ids under which it finds them. Imports no torch before it is called.

`gym.make("hardattn/RamMnist-v0")` gives a single environment, `gym.make_vec("hardattn/RamMnist-v0", num_envs=4096)` a vector of
them; both take the keyword arguments of `make_vector_env`.
"""

import functools
import secrets
from typing import TYPE_CHECKING, Any

import gymnasium

from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import TASKS, Task, find_task

if TYPE_CHECKING:
    from hardattn.envs.gymnasium_env import GlimpseVectorEnv, SingleEnv
    from hardattn.envs.raw_env import RawGlimpseVectorEnv
    from hardattn.envs.task_data import Network


def env_id(task: str, raw: bool = False) -> str:
    """The Gymnasium id of a task: "ram-mnist" is hardattn/RamMnist-v0, its raw-glimpse variant hardattn/RamMnistRaw-v0."""
    return f"hardattn/{''.join(word.capitalize() for word in task.split('-'))}{'Raw' if raw else ''}-v0"


def register() -> None:
    """Tell Gymnasium of every task. Importing hardattn does this."""
    for name, task in TASKS.items():
        # The glimpses of Catch are raw as they are, and of several targets no single guess can tell.
        for raw, kind in ((False, ""),) if task.catch or task.gating or task.targets > 1 else ((False, ""), (True, "raw_")):
            gymnasium.register(
                env_id(name, raw),
                entry_point=f"hardattn.making:make_{kind}env",
                vector_entry_point=f"hardattn.making:make_{kind}vector_env",
                kwargs={"task": name},
            )


def make_vector_env(
    num_envs: int,
    task: str,
    *,
    perception: str = "",
    perception_sha256: str = "",
    split: str = "train",
    device: str = "auto",
    precision: Any = "auto",
    seed: int | None = None,
    render_mode: str | None = None,
) -> "GlimpseVectorEnv":
    """B rows of a task over a frozen perception: the shipped one, or that of the run folder `perception`.

    `split` is train, validation or test; `device` is auto, cpu or cuda; without a `seed` every environment goes its own way; with
    `perception_sha256` other weights are refused. Raises HardattnError for anything that is missing or does not fit.
    """
    from hardattn import loading
    from hardattn.envs.catch_world import CatchWorld
    from hardattn.envs.gymnasium_env import GlimpseVectorEnv
    from hardattn.envs.task_data import new_world
    from hardattn.experiment import resolve_device

    where, asked = resolve_device(device), find_task(task)
    if asked.catch:
        if perception or perception_sha256:
            raise UsageError(f"perception: {asked.name} has none; leave it out")
        games = _data(asked, split, where)
        return GlimpseVectorEnv(CatchWorld(asked, games, batch_size=num_envs, device=where, seed=_seed(seed)), render_mode)
    folder = loading.find(perception or loading.pretrained(asked.name)).resolve()
    # Thousands of single environments share one network; a folder that is trained anew is read anew.
    setup, network = _frozen(str(folder), loading.weights_file(folder).stat().st_mtime_ns, where, task if ":" in task else None)
    if (setup.name, setup.dataset) != (asked.name, asked.dataset):
        raise UsageError(f"perception={perception}: it was trained on {setup.name}, this environment is {asked.name}; name another")
    if perception_sha256:
        loading.check_sha256(network, perception_sha256, str(folder))
    data, draws = _data(setup, split, where), _seed(seed)
    world = new_world(setup, data, network, batch_size=num_envs, precision=precision, device=where, seed=draws)
    return GlimpseVectorEnv(world, render_mode)


def make_env(task: str, **settings: Any) -> "SingleEnv":
    """One episode at a time, as numpy; the keyword arguments of `make_vector_env`. For many at once use `gym.make_vec`."""
    from hardattn.envs.gymnasium_env import SingleEnv

    return SingleEnv(make_vector_env(1, task, **settings))


def make_raw_vector_env(
    num_envs: int, task: str, *, split: str = "train", device: str = "auto", seed: int | None = None, render_mode: str | None = None
) -> "RawGlimpseVectorEnv":
    """B rows of a task's glimpses without a perception: the agent brings its own. HardattnError for a bad split or device."""
    from hardattn.envs.raw_env import RawGlimpseVectorEnv
    from hardattn.experiment import resolve_device

    where, setup = resolve_device(device), find_task(task)
    return RawGlimpseVectorEnv(setup, _data(setup, split, where), num_envs, device=where, seed=_seed(seed), render_mode=render_mode)


def make_raw_env(task: str, **settings: Any) -> "SingleEnv":
    """One episode at a time, as numpy; the keyword arguments of `make_raw_vector_env`."""
    from hardattn.envs.gymnasium_env import SingleEnv

    return SingleEnv(make_raw_vector_env(1, task, **settings))


def _seed(seed: int | None) -> int:
    """The seed given, or one that nobody else has."""
    return secrets.randbits(62) if seed is None else seed


@functools.lru_cache(maxsize=8)
def _frozen(folder: str, written: int, device: str, task: str | None) -> "tuple[Task, Network]":
    """The task and the network of a run's folder; `written` tells two states of a folder apart."""
    from hardattn import loading

    return loading.open_perception(folder, task=task, device=device)


@functools.lru_cache(maxsize=8)
def _data(task: Task, split: str, device: str) -> Any:
    from hardattn.envs import task_data

    data = task_data.training_data(task) if split == "train" else task_data.fixed_data(task, split)
    return data.to(device)
