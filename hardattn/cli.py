"""The command line. Each command is a frozen dataclass: its fields are the flags, their docstrings the help.

Nothing here imports torch before a command needs it, so that `hardattn --help` answers at once.
"""

import errno
import json
import os
import shlex
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from tyro.conf import Positional, UseAppendAction, arg, subcommand

import hardattn
from hardattn.envs.errors import HardattnError, UsageError, unknown

REFUSALS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR)  # of a disk or a path, not of this program

Sets = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]
AgentName = Annotated[str, arg(metavar="NAME|MODULE:CLASS")]
TaskName = Annotated[str, arg(metavar="NAME|MODULE:NAME")]


@dataclass(frozen=True)
class List:
    """Show the tasks, agents, baselines and runs; with a name, the settings that --set reaches."""

    name: Positional[str] = ""
    """A task or an agent whose settings to show."""
    json: bool = False
    """Print JSON for scripts."""

    def run(self) -> None:
        """Print the lists."""
        from hardattn import listing

        if self.json:
            print(json.dumps(listing.as_json(), indent=2))
        else:
            listing.show(self.name)


@dataclass(frozen=True)
class Train:
    """Train an agent on a task, or a baseline, write its run folder, and measure it on the test images at the end."""

    task: Positional[TaskName]
    """The task, as `hardattn list` shows it, or your own as module:NAME; --task module:NAME says the same."""
    agent: AgentName = "reinforce"
    """An agent's name, or your own class as module:Class."""
    baseline: str = ""
    """Instead of an agent, a model of the whole image, trained by supervision: cnn, stn, draw-reader, ..."""
    preset: str = "default"
    """Chosen settings for this task: quick, default, and what else `hardattn list TASK` names."""
    set: Sets = ()
    """Change a setting, e.g. --set std=0.05; `hardattn list TASK` shows them all. Repeatable."""
    seed: int = 0
    """Fixes every random choice."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the GPU if there is one."""
    out: Path | None = None
    """The run's folder; results/runs/<task>/<agent>/seed-<k> if not given."""
    resume: bool = False
    """Go on from the folder's last checkpoint."""
    data_dir: Path | None = None
    """The folder of data that do not ship; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""
    json: bool = False
    """Print the final numbers as JSON for scripts."""

    def run(self) -> None:
        """Train, then say how it went, where the files are and what to type next."""
        where = _use(self.data_dir)
        if self.baseline:
            self._baseline(where)
            return
        from hardattn.plugins import is_ours

        again = _again(None if is_ours(self.agent) else self.agent, _own(self.task))
        _train(self, self.agent, self.agent, f"{where}hardattn show {{folder}}{again}")

    def _baseline(self, where: str) -> None:
        """Train a model of the whole image."""
        from hardattn import console, results, train_baseline
        from hardattn.memory import keep_freed_memory

        if self.agent != "reinforce":
            raise UsageError(f"--agent {self.agent} with --baseline {self.baseline}: wanted one of the two")
        keep_freed_memory()
        setup = train_baseline.build(
            self.task, self.baseline, preset=self.preset, sets=list(self.set), seed=self.seed, device=self.device
        )
        folder = self.out or results.folder_for(setup.task.name, self.baseline, self.seed)
        with console.progress(f"{setup.task.name} · {self.baseline}") as watch:
            final = train_baseline.train_baseline(setup, folder, resume=self.resume, watch=watch)
        if self.json:
            print(json.dumps(final, indent=2))
            return
        console.show_report(final)
        console.say(f"Files in {folder}. Next: {where}hardattn report {_quoted(folder)}{_again(None, _own(self.task))}")


@dataclass(frozen=True)
class Pretrain:
    """Train a task's perception for frozen worlds to use: on random looks, or the whole CNN of a task of gains by supervision."""

    task: Positional[TaskName]
    """The task, as `hardattn list` shows it, or your own as module:NAME; --task module:NAME says the same."""
    preset: str = "default"
    """Chosen settings for this task: quick, default or best."""
    set: Sets = ()
    """Change a setting, e.g. --set core_width=128; `hardattn list TASK` shows them all. Repeatable."""
    cnn: str = ""
    """For tasks of gains: which network, small, narrow, maxout or cue; the task's own if not given."""
    seed: int = 0
    """Fixes every random choice."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the GPU if there is one."""
    out: Path | None = None
    """The run's folder; results/runs/<task>/pretrain/seed-<k> if not given."""
    resume: bool = False
    """Go on from the folder's last checkpoint."""
    data_dir: Path | None = None
    """The folder of data that do not ship; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""
    json: bool = False
    """Print the final numbers as JSON for scripts."""

    def run(self) -> None:
        """Train, then say what the perception reads and how to use it."""
        where = _use(self.data_dir)
        from hardattn.envs.tasks import find_task

        if find_task(self.task).gating:
            if self.preset != "default":
                raise UsageError(f"--preset {self.preset}: a CNN's training has none; change its settings, e.g. --set epochs=60")
            self._cnn(where)
            return
        if self.cnn:
            raise UsageError(f"--cnn {self.cnn}: {self.task} looks through glimpses; wanted a task of gains, e.g. dasnet-cifar10")
        if find_task(self.task).catch:
            raise UsageError(f"pretrain {self.task}: a game has no perception to train; wanted hardattn train {self.task}")
        kept = "".join(
            f" --set {text}" for text in self.set if _is_of_the_task(text, self.task)
        )  # what is shown must stay the same
        following = f"hardattn train {self.task} --set mode=frozen --set perception_from={{folder}}{kept}"
        _train(self, "random", "pretrain", f"{where}{following}")

    def _cnn(self, where: str) -> None:
        """Train the network of a task of gains."""
        from hardattn import console, pretrain_cnn, results
        from hardattn.memory import keep_freed_memory

        keep_freed_memory()
        sets = [*self.set, *([f"gating.cnn={self.cnn}"] if self.cnn else [])]
        setup, settings = pretrain_cnn.build(self.task, sets, seed=self.seed, device=self.device)
        assert setup.task.gating is not None
        folder = self.out or results.folder_for(setup.task.name, f"pretrain-{setup.task.gating.cnn}", self.seed)
        with console.progress(f"{setup.task.name} · pretrain {setup.task.gating.cnn}") as watch:
            final = pretrain_cnn.pretrain_cnn(setup, settings, folder, resume=self.resume, watch=watch)
        if self.json:
            print(json.dumps(final, indent=2))
            return
        low, high = final["test_interval"]
        console.say(
            f"Test error {final['test_error']:.2f} % ({low:.2f} - {high:.2f}), {final['seconds'] / 60:.1f} minutes of training."
        )
        console.say(f"Files in {folder}. Next: {where}hardattn train {self.task} --set {_quoted(f'perception_from={folder}')}")


def _is_of_the_task(assignment: str, task: str) -> bool:
    """Whether a --set speaks of the task or its canvas, and not of how to train or of the network."""
    from hardattn.envs.tasks import find_task
    from hardattn.settings import settable

    setup = find_task(task)
    section, _, field = assignment.partition("=")[0].strip().rpartition(".")
    fields = [*settable(setup), *(settable(setup.canvas) if setup.canvas else [])]
    return section in ("task", "canvas") or (not section and field in fields)


def _use(data_dir: Path | None) -> str:
    """Look for data there. Returns what stands before the next command so that it looks there too."""
    if data_dir is None:
        return ""
    os.environ["HARDATTN_DATA_DIR"] = str(data_dir)
    return f"HARDATTN_DATA_DIR={shlex.quote(str(data_dir))} "


def _own(task: str) -> str | None:
    """The task's name if it is of the user's own module, which the next command must name again."""
    return task if ":" in task else None


def _quoted(path: Path | str) -> str:
    """A path as the next command wants it typed."""
    return shlex.quote(str(path))


def _again(agent: str | None, task: str | None) -> str:
    """The options by which the next command names a run's own class and task again."""
    return (f" --agent {agent}" if agent else "") + (f" --task {task}" if task else "")


def _train(command: Train | Pretrain, agent: str, place: str, following: str) -> None:
    """Run a training command: `place` names the run's folder, `following` is what to type next."""
    from hardattn import console, results
    from hardattn.experiment import build
    from hardattn.memory import keep_freed_memory
    from hardattn.train import train

    keep_freed_memory()
    setup = build(command.task, agent, preset=command.preset, sets=list(command.set), seed=command.seed, device=command.device)
    folder = command.out or results.folder_for(setup.task.name, place, command.seed)
    with console.progress(f"{setup.task.name} · {place}") as watch:
        final = train(setup, folder, resume=command.resume, watch=watch)
    if command.json:
        print(json.dumps(final, indent=2))
        return
    console.show_report(final)
    console.say(f"Files in {folder}. Next: {following.format(folder=_quoted(folder))}")


@dataclass(frozen=True)
class Evaluate:
    """Measure a run on the test images: mean policy, sampled policy, 10 averaged paths, and the controls."""

    run_or_task: Positional[str]
    """A run's folder, or a task's name for the weights that ship with the package."""
    split: str = "test"
    """test, validation or train."""
    agent: AgentName | None = None
    """Your own class again, when the run trained one."""
    task: TaskName | None = None
    """Your own task again, when its images come from a function of yours."""
    data_dir: Path | None = None
    """The folder of data that do not ship; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the GPU if there is one."""
    json: bool = False
    """Print JSON for scripts."""

    def run(self) -> None:
        """Measure and print."""
        where = _use(self.data_dir)
        from hardattn import console, evaluate
        from hardattn.experiment import resolve_device
        from hardattn.loading import open_run
        from hardattn.memory import keep_freed_memory

        keep_freed_memory()
        device = resolve_device(self.device)
        run = open_run(self.run_or_task, split=self.split, agent=self.agent, task=self.task, device=device)
        with console.status("measuring") as tick:
            report, _ = evaluate.full_report(run.agent, evaluate.test_world(run.world, run.dataset), tick)
        shown = {"data": getattr(run.dataset, "name", "")} if run.setup.task.gating else {}  # which tells how images are spoiled
        report = {"task": run.setup.task.name, **shown, "agent": run.setup.agent, "split": self.split, **report}
        if self.json:
            print(json.dumps(report, indent=2))
            return
        console.show_report(report)
        console.say(
            f"Read from {run.folder}. Next: {where}hardattn show {_quoted(self.run_or_task)}{_again(self.agent, self.task)}"
        )


@dataclass(frozen=True)
class Show:
    """Draw scan paths over test images: a PNG with every glimpse and belief, and an animated GIF."""

    run_or_task: Positional[str]
    """A run's folder, or a task's name for the weights that ship with the package."""
    count: int = 6
    """How many images."""
    first: int = 0
    """The first image's place in the test set."""
    wrong: bool = False
    """Only images that the agent reads wrongly."""
    agent: AgentName | None = None
    """Your own class again, when the run trained one."""
    task: TaskName | None = None
    """Your own task again, when its images come from a function of yours."""
    out: Path | None = None
    """Where to write paths.png and paths.gif; the run's folder if not given, the current one for shipped weights."""
    data_dir: Path | None = None
    """The folder of data that do not ship; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""

    def run(self) -> None:
        """Draw and say where."""
        where = _use(self.data_dir)
        from hardattn import console
        from hardattn.showing import draw

        chosen: dict[str, Any] = {"count": self.count, "first": self.first, "wrong": self.wrong}
        with console.status("drawing"):
            files = draw(self.run_or_task, agent=self.agent, task=self.task, out=self.out, **chosen)
        following = f"{where}hardattn evaluate {_quoted(self.run_or_task)}{_again(self.agent, self.task)}"
        console.say(f"Drawn: {' and '.join(str(file) for file in files)}. Next: {following}")


@dataclass(frozen=True)
class Check:
    """Run the contract tests on an agent: methods, shapes, seeds, saving, and whether it learns the probe worlds."""

    agent: Positional[AgentName]
    """An agent's name, or your own class as module:Class."""
    json: bool = False
    """Print JSON for scripts."""

    def run(self) -> None:
        """Print a line a test; exit with 1 if one fails."""
        from hardattn import console
        from hardattn.testing import check_agent

        with console.status("checking") as tick:
            findings = check_agent(self.agent, tick=tick)
        if self.json:
            print(json.dumps([{"test": f.test, "passed": f.passed, "note": f.note} for f in findings], indent=2))
        else:
            console.show_findings(findings)
        if not all(finding.passed or finding.advice for finding in findings):
            if not self.json:
                console.say(f"{self.agent} breaks the contract: mend the first test that fails. Next: hardattn check {self.agent}")
            raise SystemExit(1)
        if not self.json:
            task = "ram-translated60" if self.agent == "oracle" else "ram-mnist"  # where the truth is known
            console.say(f"{self.agent} keeps the contract. Next: hardattn train {task} --agent {self.agent} --preset quick")


@dataclass(frozen=True)
class Bench:
    """Measure speed beside a loop: images a second over single images, or seconds a generation over a population's members."""

    task: Positional[TaskName]
    """The task, as `hardattn list` shows it, or your own as module:NAME; --task module:NAME says the same."""
    batch_sizes: tuple[int, ...] = (128, 512, 2048)
    """Batches to measure."""
    seconds: float = 2.0
    """How long to measure each cell."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the GPU if there is one."""
    out: Path | None = None
    """Also write the numbers to this JSON file."""
    json: bool = False
    """Print JSON for scripts."""

    def run(self) -> None:
        """Measure and print."""
        if self.seconds <= 0 or min(self.batch_sizes, default=0) < 1:
            raise UsageError("bench: wanted --seconds above 0 and --batch-sizes of 1 or more")
        from hardattn import bench, bench_filters, console, results
        from hardattn.envs.tasks import find_task
        from hardattn.experiment import resolve_device
        from hardattn.memory import keep_freed_memory

        keep_freed_memory()
        device, gains = resolve_device(self.device), find_task(self.task).gating
        with console.status("measuring") as tick:
            if gains:
                table = bench_filters.bench_filters(self.task, device, tick)
            else:
                table = bench.bench(self.task, self.batch_sizes, self.seconds, device, tick)
        if self.out:
            results.write_json(self.out, table)
        if self.json:
            print(json.dumps(table, indent=2))
            return
        (bench_filters if gains else bench).show(table)
        written = f"Numbers in {self.out}. " if self.out else ""
        console.say(f"{written}Next: hardattn train {self.task}")


@dataclass(frozen=True)
class Compare:
    """Put agents, baselines and controls of one task in one table: train what is missing, side by side, then read the runs."""

    task: Positional[TaskName]
    """The task, as `hardattn list` shows it, or your own as module:NAME; --task module:NAME says the same."""
    agents: str = "reinforce"
    """Agents' names between commas; your own as module:Class."""
    baselines: str = "cnn"
    """Baselines' names between commas: cnn, stn, draw-reader, soft-glimpse, ..."""
    seeds: int = 1
    """How many seeds each, from 0 on."""
    budget: int = 0
    """Training images for each run, repeats included; 0 takes the preset's."""
    preset: str = "default"
    """Chosen settings for this task: quick, default or best."""
    set: Sets = ()
    """Change a setting of every method, or with NAME: before it of one, e.g. --set reinforce:std=0.05. Repeatable."""
    sweep: str = ""
    """Compare at each of several values of a setting, e.g. --sweep canvas.size=40,60,100,160."""
    reference: str = ""
    """The method that the others are tested against; the first agent if not given."""
    no_train: bool = False
    """Read finished runs alone."""
    jobs: int = 0
    """Runs to train side by side; 0: as many as there are cores."""
    runs: Path = Path("results/runs")
    """Where the runs' folders lie."""
    out: Path | None = None
    """Where to write the table and the pictures; results/compare/<task> if not given."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the GPU if there is one."""
    data_dir: Path | None = None
    """The folder of data that do not ship; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""
    json: bool = False
    """Print the rows as JSON for scripts."""

    def run(self) -> None:
        """Train, read, write, print."""
        where = _use(self.data_dir)
        from hardattn import compare, console, study
        from hardattn.envs.tasks import find_task

        agents, baselines = compare.agents_and_baselines(self.agents, self.baselines)
        asked = compare.Comparison(
            self.task, agents, baselines, self.seeds, self.preset, self.set, self.budget, root=self.runs, device=self.device
        )
        parts = study.plan(asked, self.sweep)
        if not self.no_train:
            with console.many(f"compare {self.task}") as watch:
                study.train(parts, self.jobs, watch)
        with console.status("reading"):
            rows = study.read(parts, self.reference)
            task = find_task(self.task).name
            out = self.out or Path("results/compare") / task
            command = shlex.join(["hardattn", *(word for word in sys.argv[1:] if word != "--no-train")])
            files = study.write(rows, f"{task}, compared", command, {part.name: part.wanted for part in parts}, out)
        if self.json:
            print(json.dumps({name: [vars(row) for row in part] for name, part in rows.items()}, indent=2))
            return
        for name, part in rows.items():
            console.show_comparison(part, f"{task} {name}".strip())
        runs = parts[0].wanted[0].folder.parent.parent
        following = f"{where}hardattn report {_quoted(runs)}{_again(None, _own(self.task))}"
        console.say(f"Files in {out}: {', '.join(file.name for file in files)}. Next: {following}")


@dataclass(frozen=True)
class Report:
    """Put runs of one task into one HTML file: table, curves, calibration, and a player that steps through the looks."""

    runs: Positional[tuple[str, ...]]
    """Run folders, folders that hold some, or a task's name for the weights that ship with the package."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("report.html")
    """The file to write."""
    count: int = 40
    """How many of the first test images the player shows; up to 20 that a run reads wrongly come after them."""
    agent: AgentName | None = None
    """Your own class again, when a run trained one."""
    task: TaskName | None = None
    """Your own task again, when its images come from a function of yours."""
    data_dir: Path | None = None
    """The folder of data that do not ship; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""

    def run(self) -> None:
        """Gather, write and say where."""
        where = _use(self.data_dir)
        from hardattn import console, report, results
        from hardattn.loading import own_code
        from hardattn.memory import keep_freed_memory

        keep_freed_memory()
        if self.out.is_dir():
            raise UsageError(f"--out {self.out}: it is a folder; wanted a file, e.g. -o {self.out / 'report.html'}")
        with console.status("gathering") as tick:
            data = report.gather(self.runs, count=self.count, agent=self.agent, task=self.task, tick=tick)
            page = report.page(data).encode()
            results.write_bytes(self.out, page)
        for note in report.notes(data):
            console.say(note)
        size = f"{len(page) / 1e6:.1f} MB"
        seen = [run["where"] for run in data["runs"] if run["kind"] != "baseline"]
        own = _again(*own_code(seen[0])) if seen else ""
        following = f"hardattn show {_quoted(seen[0])}{own}" if seen else f"hardattn train {data['task']}"
        console.say(f"Report in {self.out} ({size}): open it in a browser. Next: {where}{following}")


@dataclass(frozen=True)
class Data:
    """Data sets that do not ship: say where they belong (path), download them (fetch), or look whether they are whole (verify)."""

    what: Positional[Literal["path", "fetch", "verify"]]
    """path, fetch or verify."""
    name: Positional[str] = "cifar10"
    """cifar10 or fashion."""
    data_dir: Path | None = None
    """The folder of data; HARDATTN_DATA_DIR, or hardattn in the cache folder, if not given."""

    def run(self) -> None:
        """Do it and say what was found."""
        from hardattn import console, data
        from hardattn.envs.data_folder import data_dir

        there = _use(self.data_dir)
        folder = data_dir() / data.source(self.name).folder
        if self.what == "path":
            print(folder)
        elif self.what == "fetch":
            with console.bytes_progress(self.name) as watch:
                data.fetch(self.name, watch)
            console.say(f"{self.name} is in {folder}. Next: {there}hardattn data verify {self.name}")
        else:
            data.verify(self.name)
            console.say(f"{self.name} is whole in {data.found_in(self.name)}. Next: {there}hardattn pretrain dasnet-{self.name}")


@dataclass(frozen=True)
class Version:
    """Print the version."""

    def run(self) -> None:
        """Print the version."""
        print(f"hardattn {hardattn.__version__}")


Command = (
    Annotated[List, subcommand("list")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Pretrain, subcommand("pretrain")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Show, subcommand("show")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Version, subcommand("version")]
)
COMMANDS = tuple(str(one.__metadata__[0].name) for one in get_args(Command))
DESCRIPTION = "Hard visual attention as reinforcement learning. Start with: hardattn train ram-mnist"


def main(arguments: list[str] | None = None) -> None:
    """Run one command. A user's mistake prints one line and exits with 2, a failed run with 1."""
    argv = sys.argv[1:] if arguments is None else arguments
    if argv == ["--version"]:
        argv = ["version"]
    argv = _task_in_its_place(argv)
    if argv and argv[0][:1].isalpha() and argv[0] not in COMMANDS:  # the parser would list every flag of every command
        print(f"hardattn: {unknown('command', argv[0], COMMANDS)} `hardattn --help` tells what they do", file=sys.stderr)
        raise SystemExit(UsageError.exit_status)
    if _without_a_name(argv):
        print("hardattn: --out: got nothing, wanted a path, e.g. --out my-run", file=sys.stderr)
        raise SystemExit(UsageError.exit_status)
    command: Any = tyro.cli(
        Command,
        prog="hardattn",
        description=DESCRIPTION,
        args=argv or ["--help"],
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes),
    )
    try:
        command.run()
    except HardattnError as error:
        print(f"hardattn: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        print("hardattn: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"hardattn: cannot use {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None


def _without_a_name(argv: list[str]) -> bool:
    """Whether an empty `--out` is given, as an unset variable of a shell leaves it: as a path it would mean the current folder."""
    return "--out=" in argv or any(pair in (("--out", ""), ("-o", "")) for pair in pairwise(argv))


def _task_in_its_place(argv: list[str]) -> list[str]:
    """`train --agent x --task y` as `train y --agent x`: both spellings are natural, and the parser takes only the second."""
    if argv[:1] and argv[0] in ("train", "pretrain", "bench", "compare"):
        for k, word in enumerate(argv):
            if word == "--task" and k + 1 < len(argv):
                return [argv[0], argv[k + 1], *argv[1:k], *argv[k + 2 :]]
            if word.startswith("--task="):
                return [argv[0], word.removeprefix("--task="), *argv[1:k], *argv[k + 1 :]]
    return argv
