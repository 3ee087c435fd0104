"""What the documents say is true: code runs, tables come again to the byte, links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from hardattn.testing import check_agent

ROOT = Path(__file__).resolve().parent.parent


def test_the_readmes_agent_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "readme_agent.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    findings = check_agent("readme_agent:Looker")
    assert all(finding.passed or finding.advice for finding in findings), findings


def test_the_results_page_comes_again_to_the_byte() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "ram_mnist_table.py"))
    assert tool["page"](tool["read"]()) == (ROOT / "results" / "ram-mnist.md").read_text()


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
