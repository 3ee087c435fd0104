"""The loop: resumed equals uninterrupted, to the bit; and what stops it leaves a good checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hardattn import loading, results
from hardattn.agents.reinforce import Reinforce
from hardattn.envs import datasets
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.perception import weights_sha256
from hardattn.experiment import Experiment, build, changed, from_json, to_json
from hardattn.settings import TrainSettings
from hardattn.train import Phase, Trainer, phases, train

TINY = ["batch_size=50", "core_width=16", "glimpse_width=16", "encoder_width=16", "evaluations=8", "augment=0.5"]


def tiny(*sets: str, agent: str = "reinforce", seed: int = 0) -> Experiment:
    return build("ram-mnist", agent, sets=[*TINY, "episodes=2000", "dropout=0.1", *sets], seed=seed, device="cpu")


def tensors(node: Any) -> list[torch.Tensor]:
    if isinstance(node, torch.Tensor):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else []
    return [tensor for child in children for tensor in tensors(child)]


def checkpoint(folder: Path) -> list[torch.Tensor]:
    return tensors(results.read_state(folder / results.CHECKPOINT))


def assert_same(one: Path, other: Path) -> None:
    assert all(torch.equal(a, b) for a, b in zip(checkpoint(one), checkpoint(other), strict=True))
    finals = [results.read_json(folder / results.FINAL) for folder in (one, other)]
    assert finals[0]["protocols"] == finals[1]["protocols"] and finals[0]["controls"] == finals[1]["controls"]
    curves = [results.read_curve(folder / results.CURVE) for folder in (one, other)]
    for row in curves[0] + curves[1]:
        del row["seconds"]
    assert curves[0] == curves[1]


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the data set is its first 400 digits of each split, so that measuring takes no time."""
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split: load(name, split).take(torch.arange(400)))


class StopAt(Exception):
    """Stands in for a kill inside this process."""


def killed_after(update: int) -> Any:
    def watch(progress: Any) -> None:
        if progress.episodes == 50 * update:
            raise StopAt

    return watch


@pytest.mark.parametrize("mode", ["joint", "staged"])
@pytest.mark.parametrize("update", [7, 10, 13, 29, 40])
def test_resumed_equals_uninterrupted(tmp_path: Path, mode: str, update: int) -> None:
    """Also from a checkpoint of a phase's very end (10, where it is staged) or of the training's (40), before it is measured."""
    setup = tiny(f"mode={mode}", "repeats=2", "random_share=0.25")
    train(setup, tmp_path / "whole")
    with pytest.raises(StopAt):
        train(setup, tmp_path / "parts", watch=killed_after(update))
    assert not (tmp_path / "parts" / results.FINAL).exists()
    train(setup, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_bf16_resumes_to_the_bit_and_counts_as_many_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose perception learns along a tape (envs/ram_written_out.py), and whose agent is shown bf16."""
    setup = tiny("precision=bf16")
    train(setup, tmp_path / "whole")
    with pytest.raises(StopAt):
        train(setup, tmp_path / "parts", watch=killed_after(13))
    train(setup, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    counted = [results.read_json(tmp_path / "whole" / results.FINAL)["flops_per_image"]]
    for quick in (False, True):
        for module in ("glimpse_world", "products"):
            monkeypatch.setattr(
                f"hardattn.envs.{module}.quick_in_float32", lambda quick=quick: quick and torch.backends.mkldnn.enabled
            )
        counted.append(train(tiny("precision=fp32"), tmp_path / f"exact-{quick}")["flops_per_image"])
    policy = 24 * 128 + 128 * 2
    look = 64 * 16 + 2 * 16 + 32 * 16 + 16 * 64 + 16 * 10  # what, where, both, the LSTM's gates, the classes
    pixels = 28 * 6 * 28  # rows and columns that six looks read
    assert counted == [2 * (6 * (policy + look) + 5 * 16 * 64 + pixels)] * 3  # of h, before the first look, there is none


def test_the_same_seed_repeats_and_another_differs(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tiny(seed=seed), tmp_path / name)
    assert_same(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "a", tmp_path / "c")


def start(folder: Path) -> subprocess.Popen[str]:
    sets = [argument for text in [*TINY, "episodes=20_000", "evaluations=40"] for argument in ("--set", text)]
    command = [sys.executable, "-m", "hardattn", "train", "ram-mnist", "--out", str(folder), "--resume", *sets]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def wait_for_rows(folder: Path, rows: int) -> None:
    for _ in range(1200):
        curve = folder / results.CURVE
        if curve.exists() and len(curve.read_text().splitlines()) >= rows and (folder / results.CHECKPOINT).exists():
            return
        time.sleep(0.05)
    raise TimeoutError(f"no {rows} rows in {folder}")


def test_kill_9_at_any_moment_loses_nothing_that_was_written(tmp_path: Path) -> None:
    finish(start(tmp_path / "whole"))
    for rows in (2, 5):
        process = start(tmp_path / "killed")
        wait_for_rows(tmp_path / "killed", rows)
        process.kill()
        process.communicate()
        assert not (tmp_path / "killed" / results.FINAL).exists()
    finish(start(tmp_path / "killed"))
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_with_a_checkpoint(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path / "run")
    wait_for_rows(tmp_path / "run", 1)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "add --resume to the same command" in errors and "Traceback" not in errors
    assert results.read_state(tmp_path / "run" / results.CHECKPOINT)["progress"][2] > 0


def test_the_plan_of_each_mode() -> None:
    settings = TrainSettings(episodes=1000, batch_size=10, random_share=0.3, frozen_share=0.1)
    assert phases(settings) == [Phase("joint", 100, True, True)]
    staged = TrainSettings(episodes=1000, batch_size=10, random_share=0.3, frozen_share=0.1, mode="staged")
    assert phases(staged) == [Phase("random", 30, True, False), Phase("frozen", 10, False, True), Phase("joint", 60, True, True)]
    halves = TrainSettings(episodes=70, batch_size=10, random_share=0.5, frozen_share=0.5, mode="staged")  # 3.5 updates each
    assert phases(halves) == [Phase("random", 4, True, False), Phase("frozen", 3, False, True)]


def test_frozen_perception_stays_as_it_was(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "first")
    given = results.read_state(tmp_path / "first" / results.CHECKPOINT)
    sets = ["mode=frozen", f"perception_from={tmp_path / 'first'}", "episodes=2000", "batch_size=50", "evaluations=2"]
    setup = build("ram-mnist", "reinforce", sets=sets, seed=5, device="cpu")
    assert setup.task.perception == tiny().task.perception  # the network of the run it comes from, whatever the task's own is
    train(setup, tmp_path / "frozen")
    after = results.read_state(tmp_path / "frozen" / results.CHECKPOINT)
    assert all(torch.equal(given["perception"][name], weight) for name, weight in after["perception"].items())
    assert not all(torch.equal(given["agent"]["policy"][name], weight) for name, weight in after["agent"]["policy"].items())


def test_the_shipped_perception_is_not_put_before_other_data() -> None:
    with pytest.raises(UsageError, match=r"was trained on mnist; make one with hardattn pretrain ram-mnist --set dataset=fashion"):
        build("ram-mnist", "reinforce", sets=["mode=frozen", "dataset=fashion"], device="cpu")


def test_frozen_without_a_run_takes_the_shipped_perception() -> None:
    trainer = Trainer(build("ram-mnist", "reinforce", sets=["mode=frozen", "batch_size=50"], device="cpu"), Path("unused"))
    shipped = loading.open_run("ram-mnist-pretrained", split="validation").perception
    assert weights_sha256(trainer.perception) == weights_sha256(shipped)
    with pytest.raises(UsageError, match="mode=frozen takes the network of perception_from as it is"):
        build("ram-mnist", "reinforce", sets=["mode=frozen", "core_width=64"])
    with pytest.raises(UsageError, match="there is no folder"):
        build("ram-mnist", "reinforce", sets=["mode=frozen", "perception_from=./nowhere"])


@pytest.mark.parametrize("agent", ["ppo", "pathwise"])
@pytest.mark.parametrize("mode", ["joint", "staged"])
def test_every_agent_trains_and_resumes_in_every_mode(agent: str, mode: str, tmp_path: Path) -> None:
    setup = tiny(f"mode={mode}", agent=agent)
    train(setup, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.episodes == 1300:
            raise Stop

    with pytest.raises(Stop):
        train(setup, tmp_path / "part", watch=stop)
    train(setup, tmp_path / "part", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "part")


def test_staged_leaves_the_agent_alone_while_perception_looks_at_random(tmp_path: Path) -> None:
    trainer = Trainer(tiny("mode=staged"), tmp_path)
    before = [weight.clone() for weight in trainer.agent.policy.parameters()]
    seen = [weight.clone() for weight in trainer.perception.parameters()]
    trainer._one_update()
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.agent.policy.parameters(), strict=True))
    assert not any(torch.equal(old, new) for old, new in zip(seen, trainer.perception.parameters(), strict=True))


def test_the_test_split_is_read_only_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split: (asked.append(split), load(name, split))[1])
    train(tiny(), tmp_path, watch=lambda progress: asked.append("update"))
    assert asked.index("test") > max(place for place, what in enumerate(asked) if what == "update")
    assert asked.count("test") == 1


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = Reinforce.update, torch.zeros((), dtype=torch.int64)

    def sick(self: Reinforce, world: Any) -> dict[str, torch.Tensor]:
        metrics = update(self, world)
        calls.add_(1)  # by tensors: by then updates are replayed
        return metrics | {"policy_loss": metrics["policy_loss"].where(calls != 12, float("nan"))}

    monkeypatch.setattr(Reinforce, "update", sick)
    with pytest.raises(HardattnError, match="policy_loss became nan at update 12; the last good checkpoint is kept"):
        train(tiny(), tmp_path)
    state = results.read_state(tmp_path / results.CHECKPOINT)
    assert state["progress"][2] == 10
    assert all(bool(tensor.isfinite().all()) for tensor in tensors(state) if tensor.is_floating_point())


def test_a_perception_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    trainer = Trainer(tiny(), tmp_path)
    with torch.no_grad():
        trainer.perception.classify.bias.fill_(float("inf"))
    with pytest.raises(HardattnError, match=r"became (nan|inf|-inf) at update 1"):
        trainer._one_update()


def test_perception_is_named_where_its_nan_reaches_the_agent_first(tmp_path: Path) -> None:
    huge_steps = tiny("train.learning_rate=1e38", "train.clip_norm=1e9")
    with pytest.raises(HardattnError, match=r"perception's logits became .* at update \d+; no checkpoint .*train.learning_rate"):
        train(huge_steps, tmp_path / "perception")
    trainer = Trainer(tiny(), tmp_path / "agent")
    with torch.no_grad():
        trainer.agent.policy.net[2].bias.fill_(float("nan"))
    with pytest.raises(HardattnError, match=r"agent reinforce: update\(\) failed: .*look at the policy"):
        trainer._one_update()


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(tmp_path: Path) -> None:
    train(tiny(), tmp_path)
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        train(tiny(), tmp_path)
    with pytest.raises(UsageError, match=r"other settings \(agent_config: std was 0.1, is 0.2\)"):
        train(tiny("std=0.2"), tmp_path, resume=True)
    again = train(tiny(), tmp_path, resume=True)  # a finished run is read, not trained again
    assert again == results.read_json(tmp_path / results.FINAL)


def test_a_run_of_a_version_with_fewer_settings_is_one_with_their_defaults(tmp_path: Path) -> None:
    final = train(tiny(), tmp_path)
    saved = results.read_json(tmp_path / results.CONFIG)
    del saved["train"]["label_noise"], saved["task"]["unit"], saved["task"]["perception"]["network"]
    results.write_json(tmp_path / results.CONFIG, saved)
    assert train(tiny(), tmp_path, resume=True) == final
    with pytest.raises(UsageError, match=r"other settings \(train: label_noise was 0.0, is 0.5\)"):
        train(tiny("label_noise=0.5"), tmp_path, resume=True)
    del saved["train"]["episodes"]  # tiny() does not leave it at its default
    results.write_json(tmp_path / results.CONFIG, saved)
    with pytest.raises(UsageError, match="train: episodes was"):
        train(tiny(), tmp_path, resume=True)


def test_other_episodes_of_an_image_are_wanted_before_anything_is_written() -> None:
    with pytest.raises(UsageError, match=r"baseline=leave-one-out with repeats=1: wanted 2 or more"):
        tiny("baseline=leave-one-out")
    assert tiny("baseline=leave-one-out", "repeats=2").train.repeats == 2


def test_another_run_and_another_program_s_config_are_not_overwritten(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "a")
    with pytest.raises(UsageError, match=r"holds a run with other settings \(agent_config: std was 0.1, is 0.2\); choose another"):
        train(tiny("std=0.2"), tmp_path / "a")
    (tmp_path / "config.json").write_text('{"name": "somebody else\'s"}')
    with pytest.raises(UsageError, match=r"config\.json is not a run's and would be overwritten"):
        train(tiny(), tmp_path)
    assert "somebody else's" in (tmp_path / "config.json").read_text()


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from hardattn import results\n"
    script += "with results.held(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another process is training there"):
            train(tiny(), tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        other.kill()
        other.communicate()
    train(tiny(), tmp_path)  # the lock is gone with its process


def test_a_run_of_another_kind_of_device_is_shown_but_not_gone_on_with(tmp_path: Path) -> None:
    train(tiny(), tmp_path)
    state = results.read_state(tmp_path / results.CHECKPOINT)
    state["agent"]["generator"] = state["agent"]["generator"][:16].clone()  # as long as a CUDA generator's
    results.write_state(tmp_path / results.CHECKPOINT, state)
    loading.open_run(str(tmp_path))
    saved = results.read_json(tmp_path / results.CONFIG)
    results.write_json(tmp_path / results.CONFIG, saved | {"device": "cuda:0"})
    assert train(tiny(), tmp_path, resume=True)["agent"] == "reinforce"  # finished: read, not trained
    (tmp_path / results.FINAL).unlink()
    with pytest.raises(UsageError, match=r"was begun on cuda, this is cpu; add --device cuda"):
        train(tiny(), tmp_path, resume=True)


def test_a_checkpoint_of_another_task_or_training_set_is_refused(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "a")
    file = tmp_path / "a" / results.CHECKPOINT
    for key, value in (("task", "ram-elsewhere"), ("data_sha256", "0" * 64)):
        state = results.read_state(file)
        state[key] = value
        (tmp_path / "b").mkdir(exist_ok=True)
        results.write_state(tmp_path / "b" / results.CHECKPOINT, state)
        results.write_json(tmp_path / "b" / results.CONFIG, results.read_json(tmp_path / "a" / results.CONFIG))
        with pytest.raises(UsageError, match=f"is of {key} {value}"):
            train(tiny(), tmp_path / "b", resume=True)


def test_the_run_folder_tells_the_whole_story(tmp_path: Path) -> None:
    final = train(tiny(), tmp_path)
    config = json.loads((tmp_path / results.CONFIG).read_text())
    assert config["task"]["name"] == "ram-mnist" and config["versions"]["torch"] == torch.__version__
    assert config["train"]["episodes"] == 2000 and config["agent_config"]["std"] == 0.1
    assert len(results.read_curve(tmp_path / results.CURVE)) == 8
    assert final["images"] == 400 and final["processed_pixels"] == 6 * 64 and 64 <= final["unique_pixels"] <= 6 * 64
    predictions = results.read_state(tmp_path / results.PREDICTIONS)
    assert predictions["probabilities"].shape == (400, 10)
    assert 100 * predictions["wrong"].float().mean() == pytest.approx(final["protocols"]["mean"]["error"])
    assert not list(tmp_path.glob(".*")) and not [file for file in os.listdir(tmp_path) if file.endswith((".pkl", ".pt", ".pth"))]


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny(), tmp_path / "first")
    begun = Trainer(tiny("start_from=first", seed=5), tmp_path / "second")
    first = results.read_state(tmp_path / "first" / results.CHECKPOINT)
    assert weights_sha256(begun.perception) == results.read_json(tmp_path / "first" / results.FINAL)["perception_sha256"]
    assert all(torch.equal(weight, first["agent"]["policy"][name]) for name, weight in begun.agent.policy.state_dict().items())
    assert not begun.agent.optimizer.state  # what moves them begins afresh
    with pytest.raises(StopAt):
        train(tiny("start_from=first"), tmp_path / "second", watch=killed_after(11))
    (tmp_path / "first").rename(tmp_path / "away")
    train(tiny("start_from=first"), tmp_path / "second", resume=True)  # the checkpoint holds all that is needed
    (tmp_path / "away").rename(tmp_path / "first")
    assert build("ram-mnist", "reinforce", sets=["start_from=first"]).task.perception.core_width == 16  # its network comes along
    with pytest.raises(UsageError, match="start_from=first: its agent is reinforce, this run's is ppo"):
        Trainer(tiny("start_from=first", agent="ppo"), tmp_path / "third")
    with pytest.raises(UsageError, match=r"its network has core_width=\d+ \(here 20\); add --set perception.core_width="):
        Trainer(tiny("start_from=first", "core_width=20"), tmp_path / "third")
    with pytest.raises(HardattnError, match="does not fit"):
        Trainer(tiny("start_from=first", "num_glimpses=3"), tmp_path / "third")
    with pytest.raises(UsageError, match=r"no folder \./nowhere"):
        Trainer(tiny("start_from=./nowhere"), tmp_path / "third")


def test_what_cannot_begin_with_weights_is_told_so() -> None:
    with pytest.raises(UsageError, match="--preset finish goes on from a finished run"):
        build("ram-cluttered60", "reinforce", preset="finish")
    with pytest.raises(UsageError, match="mode=frozen takes its perception from perception_from"):
        tiny("start_from=first", "mode=frozen")
    for agent in ("snes", "sb3:PPO"):
        with pytest.raises(UsageError, match=f"{agent} keeps more than weights"):
            build("ram-mnist", agent, sets=["start_from=first", "mode=joint"])


def test_a_run_may_go_on_without_being_recorded() -> None:
    """Replayed or not, the same comes out."""
    one, other = (tiny(f"recorded={recorded}") for recorded in ("on", "off"))
    assert changed(to_json(one), to_json(other), other) == ""


@pytest.mark.parametrize(("task", "told"), [("ram-cluttered60", "augment_clutter was False, is True"), ("ram-mnist", "")])
def test_an_older_run_left_its_clutter_crisp(task: str, told: str) -> None:
    """Before there was a setting for it, and that is not today's default; where nothing is strewn it makes no difference."""
    setup = build(task, "reinforce", sets=["augment_clutter=on"], device="cpu")
    saved = to_json(setup)
    assert changed(saved, to_json(setup), setup) == ""
    del saved["train"]["augment_clutter"]
    assert changed(saved, to_json(setup), setup).removeprefix("train: ") == told
    assert from_json(saved).train.augment_clutter is (told == "")
