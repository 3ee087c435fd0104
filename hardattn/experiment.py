"""One experiment: task, perception, training settings, agent and seed; built from a command line, saved as config.json."""

import dataclasses
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hardattn
from hardattn import plugins, settings
from hardattn.baselines import BASELINES
from hardattn.envs import own_data
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.task_data import Data, Network, new_network, new_world
from hardattn.envs.tasks import CanvasConfig, CatchConfig, GatingConfig, PerceptionConfig, Task, find_task
from hardattn.settings import TrainSettings

SAME = ("task", "train", "agent", "agent_config", "seed")  # what of a saved config must be as asked


@dataclass(frozen=True)
class Experiment:
    """Everything that fixes a run."""

    task: Task
    train: TrainSettings
    agent: str
    agent_config: Any
    seed: int = 0
    device: str = "cpu"

    def perception(self, dataset: Data) -> Network:
        """A new network for the task's glimpses; its weights come from torch's global random state."""
        return new_network(self.task, dataset).to(self.device)

    def world(self, dataset: Data, perception: nn.Module, **changes: Any) -> Any:
        """A world of this experiment; `changes` are GlimpseWorld's keyword arguments."""
        arguments: dict[str, Any] = {"batch_size": self.train.batch_size, "precision": self.train.precision, "seed": self.seed}
        return new_world(self.task, dataset, perception, device=self.device, **(arguments | changes))


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that no random generator takes; phases and worlds count on from it."""
    if not 0 <= seed < 2**63 - 10_000:
        raise UsageError(f"--seed {seed}: wanted a whole number from 0 to about 9e18")


def build(
    task: str, agent: str, *, preset: str = "default", sets: list[str] | None = None, seed: int = 0, device: str = "auto"
) -> Experiment:
    """An experiment from the names and assignments of a command line. Raises UsageError for any that is wrong."""
    base = find_task(task)
    check_seed(seed)
    sections = {
        "train": TrainSettings(),
        "task": base,
        **({} if base.catch or base.gating else {"perception": base.perception}),
        "agent": plugins.default_config(agent) or _Nothing(),
        **({"canvas": base.canvas} if base.canvas else {}),
        **({"catch": base.catch} if base.catch else {}),
        **({"gating": base.gating} if base.gating else {}),
    }
    # A preset speaks of the learner that it was tuned for; what another agent does not have or take, it does not get.
    chosen = {
        key: value
        for key, value in (settings.preset(base.name, preset) | settings.of_learner(agent, preset)).items()
        if not key.startswith("agent.") or _takes(sections["agent"], key.removeprefix("agent."), value)
    }
    if base.catch:
        chosen.pop("train.mode", None)  # there is nothing to freeze
    sections = settings.override(sections, chosen)
    own = sections.get("perception", base.perception)
    asked = settings.parse(sets or [])
    sections = settings.override(sections, asked)
    perception = sections.get("perception", base.perception)
    if base.catch:
        sections["task"] = _as_long_as_a_ball_falls(sections["task"], base, sections["catch"])
        if sections["train"].mode != "joint":
            raise UsageError(f"mode={sections['train'].mode}: {base.name} has no perception to train or to freeze; wanted joint")
    least = plugins.least_repeats(agent)
    if sections["train"].repeats < least:
        raise UsageError(
            f"repeats={sections['train'].repeats}: {agent} plays each example with a whole population; wanted {least} or more, "
            "e.g. --set repeats=50 --set batch_size=3200"
        )
    if hasattr(sections["agent"], "check_population"):
        sections["agent"].check_population(sections["train"].repeats)
    _check_start(sections["train"], agent, preset)
    if sections["train"].start_from and "perception" in sections:
        perception = _begun_with(sections["train"].start_from, base.name, perception, asked)
    if base.gating:
        sections["gating"] = _gating(sections, base, asked)
    elif sections["train"].mode == "frozen":
        source = sections["train"].perception_from
        if perception != own:
            raise UsageError("mode=frozen takes the network of perception_from as it is; leave its settings out")
        data = sections["task"].dataset
        if not source and data != base.dataset:
            raise UsageError(
                f"mode=frozen with dataset={data}: the network that ships was trained on {base.dataset}; make one with "
                f"hardattn pretrain {base.name} --set dataset={data}, then --set perception_from=FOLDER"
            )
        perception = _network_of(source, base.name)
    return Experiment(
        task=dataclasses.replace(
            sections["task"],
            perception=perception,
            **{name: sections.get(name) for name in ("canvas", "catch", "gating")},
        ),
        train=sections["train"],
        agent=agent,
        agent_config=None if isinstance(sections["agent"], _Nothing) else sections["agent"],
        seed=seed,
        device=resolve_device(device),
    )


def _check_start(train: TrainSettings, agent: str, preset: str) -> None:
    """Raise UsageError where a run cannot begin with another's weights, or should and does not say whose."""
    if preset in settings.GOING_ON and not train.start_from:
        raise UsageError(f"--preset {preset} goes on from a finished run; name its folder: --set start_from=FOLDER")
    if train.start_from and train.mode == "frozen":
        raise UsageError(f"start_from={train.start_from}: mode=frozen takes its perception from perception_from; wanted joint")
    if train.start_from and (agent == "snes" or agent.startswith("sb3:")):
        raise UsageError(f"start_from={train.start_from}: {agent} keeps more than weights; wanted reinforce, ppo or pathwise")


def _begun_with(source: str, task: str, ours: PerceptionConfig, asked: dict[str, str]) -> PerceptionConfig:
    """The network of the run that start_from names. What is asked for beside it stands, and is refused where weights do not fit.

    A run that resumes needs no such folder any more, and one that begins is told so when it reads the weights.
    """
    try:
        theirs = _network_of(source, task)
    except UsageError:
        return ours
    said = {key.rpartition(".")[2] for key in asked if key.rpartition(".")[0] in ("", "perception")}
    return dataclasses.replace(theirs, **{key: value for key, value in dataclasses.asdict(ours).items() if key in said})


def _takes(config: Any, field: str, value: Any) -> bool:
    """Whether a config has the field and accepts the value."""
    if field not in settings.settable(config):
        return False
    try:  # as text, which is read as the field's type
        settings.override({"agent": config}, {f"agent.{field}": str(value)})
    except UsageError:
        return False
    return True


def _as_long_as_a_ball_falls(task: Task, base: Task, game: CatchConfig) -> Task:
    """The task with the horizon that follows from the screen."""
    if task.num_glimpses not in (base.num_glimpses, game.size - 1):
        raise UsageError(
            f"num_glimpses={task.num_glimpses}: on a screen of catch.size={game.size} a ball falls {game.size - 1} rows"
        )
    return dataclasses.replace(task, num_glimpses=game.size - 1)


def _gating(sections: dict[str, Any], base: Task, asked: dict[str, str]) -> GatingConfig:
    """The task's gains over the network that perception_from holds. Raises UsageError for another mode or another network."""
    chosen: GatingConfig = sections["gating"]
    mode, source = sections["train"].mode, sections["train"].perception_from
    if mode != "frozen":
        raise UsageError(f"mode={mode}: the network of {base.name} is trained before, by hardattn pretrain; wanted frozen")
    saved = _saved_task(source, base.name)
    if not saved.get("gating"):
        raise UsageError(f"perception_from={source}: it was trained on {saved['name']}; wanted hardattn pretrain {base.name}")
    held = saved["gating"]["cnn"]
    if chosen.cnn != held and not {"cnn", "gating.cnn"}.isdisjoint(asked):
        raise UsageError(
            f"cnn={chosen.cnn}: {source or 'the network that ships'} is {held}; name another with perception_from=FOLDER"
        )
    return dataclasses.replace(chosen, cnn=held)


def _saved_task(source: str, task: str) -> dict[str, Any]:
    """What the config.json of a run's folder says of its task; of the task's shipped network if `source` is empty."""
    from hardattn import loading, results  # they stand above this module

    file = loading.find(source or loading.pretrained(task)) / results.CONFIG
    try:
        saved: dict[str, Any] = results.read_json(file)["task"]
        return saved
    except (KeyError, TypeError) as error:
        raise HardattnError(f"{file} does not fit hardattn {hardattn.__version__}: {error}; train the run again") from error


def _network_of(source: str, task: str) -> PerceptionConfig:
    """The settings of the network in a run's folder, or of the task's shipped one if `source` is empty."""
    try:
        return PerceptionConfig(**_saved_task(source, task)["perception"])
    except (KeyError, TypeError) as error:
        raise HardattnError(f"{source} does not fit hardattn {hardattn.__version__}: {error}; train the run again") from error


@dataclass(frozen=True)
class _Nothing:
    """Stands in for the settings of an agent that has none."""


def resolve_device(name: str) -> str:
    """Where to compute: "auto" is the first GPU if there is one, else the CPU. Raises UsageError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: torch knows no such device; wanted cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch finds no CUDA GPU here; use --device cpu, or install a CUDA build of torch")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
    if device.type == "cuda":
        repeat_to_the_bit()
    return str(device)


def repeat_to_the_bit() -> None:
    """Have a GPU choose convolutions that give the same every time, and compute fp32 as fp32."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain data, with the versions and the commit that ran it."""
    return {
        "task": dataclasses.asdict(experiment.task),
        "train": dataclasses.asdict(experiment.train),
        "agent": experiment.agent,
        "agent_config": None if experiment.agent_config is None else dataclasses.asdict(experiment.agent_config),
        "seed": experiment.seed,
        "device": experiment.device,
        "versions": {
            "hardattn": hardattn.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "git": git_commit(),
    }


def from_json(
    saved: dict[str, Any],
    agent: str | None = None,
    device: str = "cpu",
    *,
    task: str | None = None,
    file: Path | str = "config.json",
) -> Experiment:
    """The experiment behind a config.json. Raises HardattnError, naming the `file`, for one that this version cannot read.

    A class or a data set's function from outside this package is imported only if `agent` or `task` names it again: reading a file
    never runs a stranger's code.
    """
    try:
        setup = task_from_json(saved["task"], task)
        name = "centre" if saved["agent"] == "pretrain" else saved["agent"]  # a network alone is measured as it is
        if name in BASELINES:
            raise UsageError(
                f"this run is of the baseline {name}, which chooses no looks; its numbers: hardattn compare {setup.name} "
                f"--baselines {name}, or its final.json"
            )
        if not plugins.is_ours(name) and agent != name:
            raise UsageError(f"this run's agent is your own class {name}; name it again with --agent {name}")
        config_class = getattr(plugins.agent_class(name), "Config", None)
        return Experiment(
            task=setup,
            train=TrainSettings(**(_before(setup) | saved["train"])),
            agent=name,
            agent_config=None if config_class is None or saved["agent_config"] is None else config_class(**saved["agent_config"]),
            seed=saved["seed"],
            device=device,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise HardattnError(f"{file} does not fit hardattn {hardattn.__version__}: {error}; train the run again") from error


def task_from_json(saved: dict[str, Any], named: str | None = None) -> Task:
    """The task in a config.json. Raises UsageError if its images come from code that `named` does not name again.

    KeyError or TypeError for fields that this version does not know.
    """
    _check_dataset(saved["dataset"], named)
    fields = dict(saved)
    fields["perception"] = PerceptionConfig(**fields["perception"])
    fields["canvas"] = None if fields.get("canvas") is None else CanvasConfig(**fields["canvas"])
    fields["catch"] = None if fields.get("catch") is None else CatchConfig(**fields["catch"])
    fields["gating"] = None if fields.get("gating") is None else GatingConfig(**fields["gating"])
    fields["published"] = tuple((source, error) for source, error in fields["published"])
    return Task(**fields)


def changed(saved: dict[str, Any], wanted: dict[str, Any], setup: Experiment, keys: tuple[str, ...] = SAME) -> str:
    """In which settings a saved config.json is not as wanted, in words, e.g. "train: episodes was 10, is 20"; empty if in none.

    A setting that the saved one's version did not have yet counts as what was done then: as a rule that is its default.
    """
    for key in keys:
        before = _before(setup.task) if key == "train" else {}
        one, other = _completed(saved.get(key), getattr(setup, key, None), before), wanted[key]
        if key == "train" and isinstance(one, dict):
            one = one | {"recorded": other["recorded"]}  # replayed or not, the same comes out
        told = difference(one, other)
        if told:
            return f"{key}: {told}"
    return ""


def difference(saved: Any, wanted: Any) -> str:
    """In which of their settings two values of a config differ, in words; empty if in none. One may be fresh from JSON."""
    saved, wanted = _plain(saved), _plain(wanted)
    if saved == wanted:
        return ""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        keys = [key for key in sorted({*saved, *wanted}) if saved.get(key) != wanted.get(key)]
        return ", ".join(f"{key} was {saved.get(key)}, is {wanted.get(key)}" for key in keys)
    return f"was {saved}, is {wanted}"


def _before(task: Task) -> dict[str, Any]:
    """What training did before there was a setting for it, where that is not the setting's default."""
    return {"augment_clutter": False} if task.canvas and task.canvas.clutter else {}


def _completed(saved: Any, config: Any, before: dict[str, Any]) -> Any:
    """A saved section with the fields that its dataclass `config` has and it lacks, as they were `before` or at their defaults."""
    if not isinstance(saved, dict) or not dataclasses.is_dataclass(config):
        return saved
    fields = {field.name: field.default for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING}
    kept = {key: _completed(value, getattr(config, key, None), {}) for key, value in saved.items()}
    return fields | before | kept


def _plain(value: Any) -> Any:
    """As JSON would give it back: dataclasses are dictionaries, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list | tuple) else value


def _check_dataset(saved: str, named: str | None) -> None:
    """Raise UsageError unless the user names the code behind a run's images, by a task that shows them or by their own name."""
    if named is None:
        if own_data.is_code(saved):
            raise UsageError(
                f"this run's images come from your own function {saved}; name the task that shows them with --task module:NAME, "
                f"or the function itself with --task {saved}"
            )
    elif named != saved and find_task(named).dataset != saved:
        raise UsageError(
            f"--task {named}: it shows {find_task(named).dataset}, this run was trained on {saved}; name a task of that"
        )


def git_commit() -> str | None:
    """The commit of the checkout that this code lies in, with "+changes" if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changed.strip() else "")
