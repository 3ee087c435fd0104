"""What the documents say is true: code runs, tables come again to the byte, links lead somewhere."""

import dataclasses
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardattn import experiment
from hardattn.testing import check_agent

ROOT = Path(__file__).resolve().parent.parent


def python_in(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def test_the_readmes_environment_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = python_in("README.md")[0].replace("num_envs=4096", "num_envs=512")
    exec(compile(code, "README.md", "exec"), {})
    assert 0.8 < float(re.findall(r"tensor\(([0-9.]+)\)", capsys.readouterr().out)[0]) < 0.97


def test_the_ten_minute_agent_trains_as_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardattn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (code,) = python_in("docs/your-own-agent.md")
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    found = check_agent("mine:Looker")
    del sys.modules["mine"]  # other tests have a module of that name too
    assert all(finding.passed or finding.advice for finding in found), found
    solved = {finding.test for finding in found if finding.advice and finding.passed}
    assert any("'left'" in test for test in solved) and not any("'cue'" in test for test in solved)
    ran = hardattn("train", "ram-mnist", "--agent", "mine:Looker", "--set", "mode=frozen", "--set", "episodes=30_000", "--json")
    assert ran.returncode == 0, ran.stderr
    final = json.loads(ran.stdout)
    assert final["protocols"]["mean"]["error"] < final["controls"]["centre"]["error"]  # it starts at the centre, and moves
    folder = "results/runs/ram-mnist/mine.Looker/seed-0"
    assert "name it again with --agent mine:Looker" in hardattn("evaluate", folder).stderr
    listed = hardattn("list", "mine:Looker")
    assert "How far the plan moves towards what paid." in " ".join(listed.stdout.replace("│", " ").split())


def test_the_readmes_agent_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = python_in("README.md")[-1]
    (tmp_path / "readme_agent.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    findings = check_agent("readme_agent:Looker")
    assert all(finding.passed or finding.advice for finding in findings), findings


@pytest.mark.parametrize(
    ("tool", "page", "named"),
    [("ram_mnist_table", "ram-mnist", ()), ("agents_table", "agents-ram-mnist", ()), ("dasnet_table", "dasnet-cifar10", ())]
    + [("soft_table", "soft", ())]
    + [("canvas_tables", page, (page,)) for page in ("ram", "dram")],
)
def test_a_results_page_comes_again_to_the_byte(
    tool: str, page: str, named: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    code = runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))
    assert code["page"](code["gathered"].read(code["RUNS"]), *named) == (ROOT / "results" / f"{page}.md").read_text()


def flat(record: dict[str, Any], before: str = "") -> dict[str, Any]:
    """{"train": {"mode": ...}} as {"train.mode": ...}."""
    pairs: dict[str, Any] = {}
    for key, value in record.items():
        pairs |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return pairs


@pytest.mark.parametrize("tool", ["dasnet_table", "canvas_tables"])
def test_a_rows_command_asks_for_the_settings_that_were_measured(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    code = runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))
    commands = code["ROWS"] if "ROWS" in code else {name: told for page in code["PAGES"].values() for name, told in page.items()}
    runs = [run for run in code["gathered"].read(code["RUNS"]) if commands[run["row"]].startswith("hardattn train")]
    assert len(runs) > 20
    for run in runs:
        words = shlex.split(commands[run["row"]].replace("seed-K", f"seed-{run['seed']}"))
        named = dict(zip(words[3::2], words[4::2], strict=True))  # the last of each option
        sets = [value for option, value in zip(words[3::2], words[4::2], strict=True) if option == "--set"]
        asked = experiment.build(
            words[2], named.get("--agent", "reinforce"), preset=named.get("--preset", "default"), sets=sets, device="cpu"
        )
        now = flat(json.loads(json.dumps(dataclasses.asdict(asked))))
        then = flat({key: run["config"][key] or {} for key in ("task", "train", "agent_config")})
        kept = then.keys() - {"task.summary", "task.published"}  # settings that came later are not in old records
        if run["config"]["train"].get("start_from"):  # the network is that of a run which need not lie here
            kept = {key for key in kept if not key.startswith("task.perception.")}
        assert {key: now[key] for key in kept} == {key: then[key] for key in kept}, run["row"]


def test_a_studys_page_comes_again_to_the_byte_from_its_raw_rows() -> None:
    code = runpy.run_path(str(ROOT / "tools" / "compare_pages.py"))
    for name in code["PAGES"]:
        assert code["page"](name) == (ROOT / "results" / f"{name}.md").read_text()


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
