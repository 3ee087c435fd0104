"""From CIFAR-10's binary files to a trained population: pretrain, train, evaluate and resume on small files made by code."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hardattn import results
from hardattn.cli import main
from hardattn.envs.cifar10 import RECORD, TEST, TRAIN, cifar10, read_records
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.task_data import fixed_data, training_data
from hardattn.envs.tasks import find_task
from hardattn.experiment import build


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six binary files of 60 pictures: each class is a bright block at its own place, in its own colour, over noise."""
    monkeypatch.setenv("HARDATTN_DATA_DIR", str(tmp_path))
    write_pictures(tmp_path)
    return tmp_path


def write_pictures(folder: Path) -> None:
    """The six files."""
    random = np.random.default_rng(0)
    for name in (*TRAIN, *TEST):
        labels = np.arange(60, dtype=np.uint8) % 10
        images = random.integers(0, 120, (60, 3, 32, 32), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[int(label) % 3, row * 10 : row * 10 + 10, column * 8 : column * 8 + 8] = 250
        records = np.concatenate([labels[:, None], images.reshape(60, -1)], axis=1)
        (folder / "cifar10").mkdir(exist_ok=True)
        (folder / "cifar10" / name).write_bytes(records.tobytes())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained on them for four passes, once for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    write_pictures(folder)
    words = ["pretrain", "dasnet-cifar10", "--cnn", "small", "--out", str(folder / "net")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDATTN_DATA_DIR", str(folder))
        main([*words, "--set", "epochs=4", "--set", "cnn.batch_size=27", "--set", "cnn.learning_rate=0.05"])
    return folder / "net"


@pytest.fixture
def network(data: Path, trained: Path) -> Path:
    """A copy of it beside this test's own data."""
    return Path(shutil.copytree(trained, data / "net"))


def run(network: Path, out: str, *more: str) -> list[str]:
    """The words of a short SNES run."""
    sets = ("episodes=96", "batch_size=32", "repeats=4", "evaluations=3", f"perception_from={network}", "num_glimpses=2")
    words = ["train", "dasnet-cifar10", "--agent", "snes", "--out", out]
    return [*words, *(word for text in sets for word in ("--set", text)), *more]


def test_records_become_pictures_and_the_last_are_held_out(data: Path) -> None:
    train, held, test = cifar10("train"), cifar10("validation"), cifar10("test")
    assert (len(train), len(held), len(test)) == (270, 30, 60) and train.images.shape[1:] == (3, 32, 32)
    raw = (data / "cifar10" / TRAIN[0]).read_bytes()
    assert (
        raw[1] == int(train.images[0, 0, 0, 0])
        and raw[1 + 1024] == int(train.images[0, 1, 0, 0])
        and raw[0] == int(train.labels[0])
    )
    last = (data / "cifar10" / TRAIN[-1]).read_bytes()[-RECORD:]
    assert last[0] == int(held.labels[-1]) and last[-1] == int(held.images[-1, 2, 31, 31])


def test_what_teaches_the_policy_is_chosen_and_what_measures_it_is_not(data: Path) -> None:
    train, held, test = cifar10("train"), cifar10("validation"), cifar10("test")
    usual = find_task("dasnet-cifar10")
    assert usual.gating is not None
    more = dataclasses.replace(usual, gating=dataclasses.replace(usual.gating, learns_from="training"))
    assert torch.equal(training_data(usual).show(torch.arange(24), torch.Generator(), 0.0).images, held.images[:24])
    assert torch.equal(training_data(more).show(torch.arange(270), torch.Generator(), 0.0).images, train.images)
    for task in (usual, more):
        assert torch.equal(fixed_data(task, "validation").images, held.images[24:])
        assert torch.equal(fixed_data(task, "test").images, test.images)


def test_files_that_are_cut_foreign_or_missing_are_named(data: Path) -> None:
    file = data / "cifar10" / TRAIN[2]
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(HardattnError, match=r"data_batch_3\.bin holds 184,375 bytes, wanted a multiple of 3,073"):
        cifar10("train")
    file.write_bytes(bytes([17]) * RECORD)
    with pytest.raises(HardattnError, match="a label is 17, wanted 0 to 9"):
        read_records(file)
    file.unlink()
    with pytest.raises(HardattnError, match="hardattn data fetch cifar10"):
        cifar10("train")


def test_pretrain_train_and_evaluate(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = results.read_json(network / results.FINAL)
    assert final["test_error"] < 50 and len(results.read_curve(network / results.CURVE)) == 4  # of 90 by chance
    assert not any("norm" in name for name in results.read_state(network / results.CHECKPOINT)["perception"])
    main(run(network, str(network.parent / "snes")))
    found = results.read_json(network.parent / "snes" / results.FINAL)
    assert found["controls"]["centre"]["error"] == pytest.approx(final["test_error"])  # scores of 0: the network as it is
    capsys.readouterr()
    main(["evaluate", str(network.parent / "snes"), "--json"])
    assert json.loads(capsys.readouterr().out)["protocols"]["mean"]["error"] == found["protocols"]["mean"]["error"]


@pytest.mark.parametrize("strategy", ["snes", "evosax:SNES"])
def test_a_resumed_run_equals_an_uninterrupted_one(network: Path, strategy: str) -> None:
    whole, parts = network.parent / "whole", network.parent / "parts"
    main(run(network, str(whole), "--set", f"strategy={strategy}"))
    from hardattn import train as training

    setup = build(
        "dasnet-cifar10",
        "snes",
        sets=[word for word in run(network, "", "--set", f"strategy={strategy}") if "=" in word],
        device="cpu",
    )
    trainer = training.Trainer(setup, parts)
    results.write_json(parts / results.CONFIG, results.read_json(whole / results.CONFIG))
    trainer._evaluate({})
    trainer._one_update()
    trainer._evaluate({})
    trainer.checkpoint()
    main([*run(network, str(parts), "--set", f"strategy={strategy}"), "--resume"])
    one, other = (results.read_state(folder / results.CHECKPOINT) for folder in (whole, parts))
    assert torch.equal(one["agent"]["mean"], other["agent"]["mean"]) and one["best"]["update"] == other["best"]["update"]


def test_a_resumed_pretraining_equals_an_uninterrupted_one(data: Path) -> None:
    words = ["pretrain", "dasnet-cifar10", "--set", "epochs=3", "--set", "cnn.batch_size=54"]  # averaging from the second on
    main([*words, "--out", str(data / "whole")])
    from hardattn import pretrain_cnn

    setup, chosen = pretrain_cnn.build("dasnet-cifar10", ["epochs=3", "cnn.batch_size=54"], seed=0, device="auto")
    trainer = pretrain_cnn.CnnTrainer(setup, chosen, data / "parts", lambda progress: None)
    results.write_json(data / "parts" / results.CONFIG, results.read_json(data / "whole" / results.CONFIG))
    for epoch in (1, 2):
        trainer._one_epoch(lambda: False)
        trainer.epoch = epoch
    assert trainer.averaged
    trainer.checkpoint()
    main([*words, "--out", str(data / "parts"), "--resume"])
    one, other = (results.read_json(data / name / results.FINAL) for name in ("whole", "parts"))
    assert one["perception_sha256"] == other["perception_sha256"]


def test_steps_rise_and_fall_and_the_last_weights_are_averaged(data: Path) -> None:
    from hardattn import pretrain_cnn

    sets = ["cnn.batch_size=54", "last_rate=0.2", "average=0.5"]
    trainer = pretrain_cnn.CnnTrainer(
        *pretrain_cnn.build("dasnet-cifar10", sets, seed=0, device="cpu"), data, lambda progress: None
    )
    assert [trainer._share(done) for done in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.6, 0.2])
    before = [weight.detach().clone() for weight in trainer.weights]
    trainer._average(4)
    with torch.no_grad():
        for weight in trainer.weights:
            weight += 1
    trainer._average(4)  # half a pass of four steps: each counts a half
    trainer._settle()
    for weight, old in zip(trainer.weights, before, strict=True):
        assert torch.allclose(weight, old + 0.5)
    trainer.network.eval()
    with torch.no_grad():  # the first normalisation has the statistics that belong to these weights
        normed = trainer.network.begin(trainer.data.images) - trainer.norms[0].bias[:, None, None]
    assert normed.mean(dim=(0, 2, 3)).abs().max() < 0.1 and (normed.std(dim=(0, 2, 3)) - 1).abs().max() < 0.1
    assert all(norm.momentum == 0.1 for norm in trainer.norms)


def test_a_loss_that_is_not_finite_stops_with_a_remedy_and_maxout_has_its_own_steps(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["pretrain", "dasnet-cifar10", "--cnn", "maxout", "--set", "learning_rate=1e9", "--out", str(data / "nan")])
    assert left.value.code == 1 and "--set learning_rate=2.5e+08" in capsys.readouterr().err
    from hardattn import pretrain_cnn

    rates = [
        pretrain_cnn.build("dasnet-cifar10", [f"cnn={kind}"], seed=0, device="cpu")[1].learning_rate
        for kind in ("small", "narrow", "maxout")
    ]
    assert rates == [0.1875, 0.1, 0.015]


def test_a_network_alone_is_measured_as_it_is(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["evaluate", str(network), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["protocols"]["mean"]["error"] == results.read_json(network / results.FINAL)["test_error"]
    assert found["data"] == "cifar10"


def test_the_data_folder_can_be_named_on_the_command_line(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDATTN_DATA_DIR", str(network.parent / "elsewhere"))
    with pytest.raises(SystemExit):
        main(["evaluate", str(network)])
    main(["evaluate", str(network), "--data-dir", str(network.parent)])


def test_a_single_image_can_be_spoiled(network: Path) -> None:
    out = str(network.parent / "spoiled")
    main([*run(network, out, "--set", "corruption=all"), "--set", "batch_size=4"])  # one image, four members
    assert results.read_json(Path(out) / results.FINAL)["images"] == 60


def test_ppo_stays_finite_over_hundreds_of_gains(network: Path) -> None:
    sets = [f"perception_from={network}", "episodes=72", "batch_size=24", "evaluations=1", "num_glimpses=2"]
    words = ["train", "dasnet-cifar10", "--agent", "ppo", "--out", str(network.parent / "ppo")]
    main([*words, *(word for text in sets for word in ("--set", text))])


def test_what_does_not_fit_is_named(network: Path) -> None:
    from_network = f"perception_from={network}"
    for sets, message in (
        ([from_network, "mode=joint"], "trained before, by hardattn pretrain"),
        ([from_network, "cnn=maxout"], "is small; name another with perception_from"),
        ([from_network, "repeats=1"], "snes plays each example with a whole population"),
        ([from_network, "mirrored=true", "repeats=5", "batch_size=20"], "repeats=5: the strategy draws members in pairs"),
        ([from_network, "strategy=evosax:CR_FM_NES", "repeats=5", "batch_size=20"], "wanted an even number"),
        (["perception_from=ram-mnist"], "it was trained on ram-mnist; wanted hardattn pretrain dasnet-cifar10"),
    ):
        with pytest.raises(UsageError, match=message):
            build("dasnet-cifar10", "snes", sets=sets)


def test_gymnasium_finds_it_and_show_draws_it(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gymnasium as gym

    import hardattn  # noqa: F401  # registers the ids

    envs = gym.make_vec("hardattn/DasnetCifar10-v0", 3, perception=str(network), device="cpu", seed=0, split="test")
    observation, info = envs.reset()
    before = info["logits"]
    still = torch.zeros(3, envs.single_action_space.shape[0])
    for step in range(5):  # an episode ends, and the next one begins within the same step
        observation, reward, done, _, info = envs.step(still)
        assert observation.shape == (3, *envs.single_observation_space.shape) and bool(done.all()) == (step == 4)
    assert torch.equal(info["final_info"]["logits"], before) and float(reward.abs().sum()) > 0
    envs.close()
    main(run(network, str(network.parent / "snes")))
    main(["show", str(network.parent / "snes"), "--count", "2"])
    assert (network.parent / "snes" / "gains.png").stat().st_size > 10_000
    assert "gains.png" in capsys.readouterr().err
