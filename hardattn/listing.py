"""The `list` command: tasks, agents, baselines, runs, and the settings behind a name."""

import dataclasses
import inspect
import json
import re
from typing import Any

from rich.table import Table

from hardattn.agents import AGENTS, CONTROLS
from hardattn.baselines import BASELINES, SUMMARIES
from hardattn.console import results, say
from hardattn.envs.errors import unknown
from hardattn.envs.importing import import_object, installed_agents
from hardattn.envs.tasks import TASKS, Task, find_task
from hardattn.settings import PRESETS, CnnSettings, TrainSettings, settable

RUNS = "results/runs"


def as_json() -> dict[str, Any]:
    """What there is, as plain data."""
    return {
        "tasks": [
            {"name": task.name, "summary": task.summary, "presets": sorted(PRESETS.get(task.name, {"default": {}}))}
            for task in TASKS.values()
        ],
        "agents": [{"name": name, "control": name in CONTROLS} for name in [*AGENTS, *installed_agents()]],
        "baselines": [{"name": name, "summary": summary} for name, summary in SUMMARIES.items()],
    }


def show(name: str) -> None:
    """Print tasks, agents, baselines and runs, or the settings of one of them."""
    if name:
        _settings(name)
        return
    tasks = Table("task", "what it is", "presets", title="tasks", title_justify="left")
    for task in TASKS.values():
        tasks.add_row(task.name, task.summary, ", ".join(PRESETS.get(task.name, {"default": {}})))
    tasks.add_row("module:NAME", "your own: a Task in a module of this folder", "default")
    results.print(tasks)
    agents = Table("agent", "what it is", title="agents", title_justify="left")
    for agent in AGENTS:
        agents.add_row(agent, "control: never learns" if agent in CONTROLS else "learns")
    for agent, source in installed_agents().items():
        agents.add_row(agent, f"{source}, of a package installed here")
    agents.add_row("sb3:PPO", "an algorithm of stable-baselines3: PPO, A2C, SAC, TD3, ...")
    agents.add_row("module:Class", "your own class; try it with hardattn check module:Class")
    results.print(agents)
    baselines = Table("baseline", "what it is", title="baselines", title_justify="left")
    for baseline, summary in SUMMARIES.items():
        baselines.add_row(baseline, summary)
    baselines.add_row("soft-glimpse", "in compare: the agent pathwise, the soft twin of hard looks")
    results.print(baselines)
    runs = _runs()
    if runs:
        results.print(runs)
    say("Next: hardattn train ram-mnist, or hardattn list NAME for the settings behind a name")


def _runs() -> Table | None:
    from pathlib import Path

    folders = sorted(config.parent for config in Path(RUNS).glob("*/*/*/config.json"))
    if not folders:
        return None
    table = Table("run", "test error", title="runs", title_justify="left")
    for folder in folders:
        try:
            final = json.loads((folder / "final.json").read_text())
            state = f"{final['protocols']['mean']['error'] if 'protocols' in final else final['test_error']:.2f} %"
        except (OSError, ValueError, KeyError):
            state = "not finished"
        table.add_row(str(folder), state)
    return table


def _settings(name: str) -> None:
    task = _task(name)
    if task:
        shown = [
            (title, config) for title, config in (("canvas", task.canvas), ("catch", task.catch), ("gating", task.gating)) if config
        ]
        seeing: list[tuple[str, Any]] = [] if task.catch or task.gating else [("perception", task.perception)]
        if task.gating:
            seeing.append(("cnn", CnnSettings()))
        for title, config in (("train", TrainSettings()), ("task", task), *shown, *seeing):
            results.print(_fields(title, config))
        if shown:
            title, config = shown[0]
            shared = sorted(set(settable(config)) & {*settable(task), *settable(TrainSettings())})
            say(f"Where two sections share a key, write the section before it, e.g. {title}.{shared[0]}")
        say(f"Presets: {', '.join(PRESETS.get(name, {'default': {}}))}. Next: hardattn train {name} --set episodes=100_000")
        return
    if name in BASELINES:
        from hardattn.train_baseline import baseline_class

        results.print(_fields("baseline", baseline_class(name).Config()))
        say(f"Next: hardattn train ram-mnist --baseline {name}")
        return
    name = "pathwise" if name == "soft-glimpse" else name
    known = [*AGENTS, *installed_agents()]
    if ":" not in name and name not in known:
        raise unknown("task, agent or baseline", name, [*TASKS, *known, *BASELINES])
    from hardattn.plugins import default_config

    config = default_config(name)
    if config is None or not settable(config):
        say(f"{name} has no settings")
        return
    results.print(_fields("agent", config))
    say(f"Next: hardattn train ram-mnist --agent {name}")


def _task(name: str) -> Task | None:
    """The task of this name, or None where it may name an agent."""
    if ":" in name and not name.startswith("sb3:"):  # module:NAME is either; what it names tells which
        return find_task(name) if isinstance(import_object(name, (type, Task)), Task) else None
    return TASKS.get(name)


def _fields(title: str, config: Any) -> Table:
    """A config's settings with their defaults and sentences."""
    table = Table("key", "default", "what it does", title=f"{title}: --set key=value", title_justify="left")
    sentences = field_docs(type(config))
    for key in settable(config):
        table.add_row(key, str(getattr(config, key)), sentences.get(key, ""))
    return table


def field_docs(config: Any) -> dict[str, str]:
    """The sentence under each field of a dataclass: its own `sentences`, or read from its source; nothing where there is none."""
    if hasattr(config, "sentences"):
        return dict(config.sentences)
    try:
        source = inspect.getsource(config)
    except (OSError, TypeError):
        return {}
    names = {field.name for field in dataclasses.fields(config)}
    found = re.findall(r'^    (\w+):[^\n]*\n    """(.*?)"""', source, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found if name in names}
