"""Open what was trained before: a run folder, or the weights that ship with the package under a task's name."""

import os
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hardattn import experiment, plugins, results
from hardattn.agents import CONTROLS
from hardattn.baselines import BASELINES
from hardattn.envs import own_data
from hardattn.envs.catch import Games
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError, unknown
from hardattn.envs.perception import weights_sha256
from hardattn.envs.task_data import Data, Network, fixed_data, new_network, training_data
from hardattn.envs.tasks import TASKS, Task
from hardattn.experiment import Experiment

FRESH = ("optimizer", "generator")  # what an agent does not take over from the run that it starts from
SHIPPED = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True)
class Run:
    """A trained perception with its agent, on one split of its data."""

    setup: Experiment
    dataset: Dataset | Games
    perception: nn.Module
    agent: Any
    folder: Path

    def world(self, dataset: Data | None = None, **changes: Any) -> Any:
        """A world with this perception, over this run's split or another data set."""
        return self.setup.world(dataset or self.dataset, self.perception, **changes)


def find(name: str) -> Path:
    """The folder behind a run's path or a task's name. Raises UsageError if there is neither."""
    path = Path(name)
    if (path / results.CONFIG).exists():
        return path
    if (SHIPPED / name / results.CONFIG).exists():
        return SHIPPED / name
    if name in TASKS:
        raise UsageError(f"no weights for {name} ship with the package; train it: hardattn train {name}")
    if path.is_dir():
        raise UsageError(
            f"{name} is no run folder: it has no {results.CONFIG}; a run lies in {results.RUNS}/<task>/<agent>/seed-<k>"
        )
    if ":" in name:
        raise UsageError(f"no weights ship for {name}; name the folder of a run, {results.RUNS}/<task>/<agent>/seed-<k>")
    if os.sep in name or name.startswith("."):
        raise UsageError(f"there is no folder {name}; `hardattn list` shows the runs under {results.RUNS}")
    raise unknown("task or run folder", name, TASKS)


def read_weights(folder: Path) -> dict[str, Any]:
    """The newest state in a folder. Raises HardattnError if there is none."""
    return results.read_state(weights_file(folder))


def weights_file(folder: Path) -> Path:
    """The file with the newest state in a folder. Raises HardattnError if there is none."""
    for name in (results.CHECKPOINT, results.WEIGHTS):
        if (folder / name).exists():
            return folder / name
    raise HardattnError(f"{folder} has no {results.CHECKPOINT} yet; train it, or wait for the first evaluation")


def pretrained(task: str) -> str:
    """The name of the shipped perception that was trained on random looks. Raises UsageError if the task has none."""
    name = f"{task}-pretrained"
    if not (SHIPPED / name / results.CONFIG).exists():
        raise UsageError(
            f"no pretrained perception for {task} ships; make one with hardattn pretrain {task}, then name its folder: "
            f"--set perception_from=FOLDER on the command line, perception=FOLDER in gym.make{_or_trained(task)}"
        )
    return name


def _or_trained(task: str) -> str:
    """That the perception of the task's trained run will do too, where one ships."""
    if not (SHIPPED / task / results.CONFIG).exists():
        return ""
    return f"; that of the run that ships, which has learned with its policy, is perception_from={task}"


def load_perception(perception: nn.Module, name: str) -> None:
    """Put a run's perception weights into a network. Raises HardattnError if they do not fit."""
    folder = find(name)
    fit(perception, read_weights(folder), folder)


def load_both(perception: nn.Module, actor: Any, setup: Experiment) -> None:
    """Put the weights of the run that `start_from` names into a new run's network and agent.

    Raises UsageError, naming what must be set, if they are of another kind, HardattnError if they do not fit.
    """
    name, agent, ours = setup.train.start_from, setup.agent, asdict(setup.task.perception)
    folder = find(name)
    state, saved = read_weights(folder), results.read_json(folder / results.CONFIG)
    if saved.get("agent") != agent:
        raise UsageError(f"start_from={name}: its agent is {saved.get('agent')}, this run's is {agent}; wanted the same")
    theirs = saved.get("task", {}).get("perception", {})
    other = [key for key in ours if theirs.get(key, ours[key]) != ours[key] and key != "dropout"]  # which has no weights
    if other:
        told = ", ".join(f"{key}={theirs[key]} (here {ours[key]})" for key in other)
        wanted = " ".join(f"--set perception.{key}={theirs[key]}" for key in other)
        raise UsageError(f"start_from={name}: its network has {told}; add {wanted}")
    try:
        fit(perception, state, folder)
        load_agent(actor, {key: value for key, value in state.get("agent", {}).items() if key not in FRESH}, agent, folder)
    except HardattnError as error:
        task = saved.get("task", {}).get("name")
        if task == setup.task.name:
            raise
        raise UsageError(
            f"start_from={name}: its weights are of {task}, and do not fit {setup.task.name}; wanted a run of {setup.task.name}"
        ) from error


def load_agent(actor: Any, state: dict[str, Any], agent: str, folder: Path) -> None:
    """Put a run's state into an agent. Raises HardattnError if it does not fit."""
    try:
        actor.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")  # torch names every weight
        raise HardattnError(f"{folder}: the agent's state does not fit {agent}: {reason}; train the run again") from error


def check_sha256(perception: nn.Module, wanted: str, source: str) -> None:
    """Refuse weights other than those asked for: raises HardattnError if the fingerprint differs."""
    found = weights_sha256(perception)
    if found != wanted:
        raise HardattnError(f"{source}: its perception has SHA-256 {found}, wanted {wanted}: other weights, or damaged")


def open_perception(name: str, *, task: str | None = None, device: str = "cpu") -> tuple[Task, Network]:
    """The task and the perception of a run, whatever its agent was. Raises HardattnError if anything is missing or does not fit."""
    folder = find(name)
    try:
        saved = experiment.task_from_json(results.read_json(folder / results.CONFIG)["task"], task)
    except (KeyError, TypeError) as error:
        raise HardattnError(f"{folder / results.CONFIG} does not fit this version: {error}; train the run again") from error
    network = new_network(saved, training_data(saved)).to(device)
    fit(network, read_weights(folder), folder)
    return saved, network


def open_run(name: str, *, split: str = "test", agent: str | None = None, task: str | None = None, device: str = "cpu") -> Run:
    """A run by its folder, or a task's shipped weights by its name. Raises HardattnError if anything is missing or does not fit.

    `agent` and `task` name the user's own class and task again, where the run was made with such; another agent than the run's is a
    UsageError.
    """
    folder = find(name)
    file = folder / results.CONFIG
    setup = experiment.from_json(results.read_json(file), agent, device, task=task, file=file)
    if agent not in (None, setup.agent):
        raise UsageError(f"--agent {agent}: the agent of {name} is {setup.agent}; leave --agent out, or train a run of that one")
    state = read_weights(folder)
    dataset = fixed_data(setup.task, split).to(device)
    perception = setup.perception(dataset)
    fit(perception, state, folder)
    world = setup.world(dataset, perception, batch_size=1, repeats=1)
    actor = plugins.make_agent(setup.agent, world, config=setup.agent_config, seed=setup.seed)
    if "agent" not in state and setup.agent not in CONTROLS:
        raise HardattnError(f"{folder} holds no agent; train the run again")
    load_agent(actor, state.get("agent", {}), setup.agent, folder)
    return Run(setup, dataset, perception, actor, folder)


def own_code(name: str) -> tuple[str | None, str | None]:
    """What of a run is the user's own and must be named again with --agent and --task: its class, and its images' function."""
    saved = results.read_json(find(name) / results.CONFIG)
    agent, dataset = str(saved["agent"]), str(saved["task"]["dataset"])
    ours = agent in (*BASELINES, "pretrain") or plugins.is_ours(agent)
    return None if ours else agent, dataset if own_data.is_code(dataset) else None


def fit(perception: nn.Module, state: dict[str, Any], folder: Path) -> None:
    """Put a run's weights into a network. Raises HardattnError if they do not fit or are not those that the run noted."""
    try:
        perception.load_state_dict(state["perception"])
    except (RuntimeError, KeyError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")  # torch names every weight
        raise HardattnError(f"{folder}: its perception does not fit this task's network: {reason}") from error
    wanted = state.get("perception_sha256") or _recorded_sha256(folder)
    if wanted:
        check_sha256(perception, wanted, str(folder))


def _recorded_sha256(folder: Path) -> str | None:
    """The fingerprint that a finished run noted in its final.json."""
    if not (folder / results.FINAL).exists():
        return None
    recorded = results.read_json(folder / results.FINAL).get("perception_sha256")
    return None if recorded is None else str(recorded)
