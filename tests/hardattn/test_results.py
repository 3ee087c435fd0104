import errno
import os
from pathlib import Path

import pytest
import torch

from hardattn import results
from hardattn.envs.errors import HardattnError

STATE = {
    "weights": {"a.b": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "fused": None}],
    },
    "generator": torch.Generator().get_state(),
    "progress": [1, 2.5, None, "joint", True],
    "nothing": None,
}


def test_a_state_comes_back_whole(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    results.write_state(file, STATE)
    back = results.read_state(file)
    assert torch.equal(back["weights"]["a.b"], STATE["weights"]["a.b"]) and back["weights"]["half"].dtype == torch.bfloat16
    assert back["optimizer"]["state"][0]["step"] == 3 and back["optimizer"]["state"][1] == {}
    assert back["optimizer"]["param_groups"] == [{"lr": 0.1, "betas": [0.9, 0.999], "fused": None}]
    assert back["progress"] == STATE["progress"] and back["nothing"] is None
    assert torch.equal(back["generator"], STATE["generator"])


def test_what_no_checkpoint_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(HardattnError, match="cannot save a set"):
        results.write_state(tmp_path / "x", {"a": {1, 2}})


@pytest.mark.parametrize("damage", [b"", b"abc", b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!"])
def test_a_damaged_state_is_named(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(damage)
    with pytest.raises(HardattnError, match=r"checkpoint\.safetensors is damaged"):
        results.read_state(file)


def test_a_cut_off_state_is_named(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    results.write_state(file, STATE)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(HardattnError, match="is damaged"):
        results.read_state(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HardattnError, match=r"cannot read .*final\.json: no such file"):
        results.read_json(tmp_path / "final.json")
    for damage in (b"{", b"\xff\xfe\xfa"):
        (tmp_path / "final.json").write_bytes(damage)
        with pytest.raises(HardattnError, match="is damaged"):
            results.read_json(tmp_path / "final.json")


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only")]
)
def test_a_refusing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    file = tmp_path / "final.json"
    results.write_json(file, {"old": 1})

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HardattnError, match=words):
        results.write_json(file, {"new": 2})
    assert results.read_json(file) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["final.json"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(HardattnError, match="choose another folder with --out"):
        results.write_json(tmp_path / "run" / "config.json", {})


def test_a_curve_survives_a_half_written_line_and_is_trimmed(tmp_path: Path) -> None:
    curve = tmp_path / "curve.jsonl"
    for update in (10, 20, 30):
        results.append_line(curve, {"update": update})
    with open(curve, "a") as file:
        file.write('{"update": 4')
    assert [row["update"] for row in results.read_curve(curve)] == [10, 20, 30]
    results.trim_curve(curve, 20)
    assert curve.read_text() == '{"update": 10}\n{"update": 20}\n'


def test_folders_are_named_by_task_agent_and_seed() -> None:
    assert results.folder_for("ram-mnist", "mine:Looker", 3) == Path("results/runs/ram-mnist/mine.Looker/seed-3")
