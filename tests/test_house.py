"""The house keeps its shape: imports run one way, no pickle, and the wheel holds every module."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"envs": 0, "agents": 1, "hardattn": 2}  # a folder may import its own floor and those below


def modules() -> list[tuple[str, Path]]:
    return [(folder, path) for folder in FLOORS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write from hardattn.... import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def floor(name: str) -> int | None:
    parts = name.split(".")
    if parts[0] != "hardattn":
        return None
    return FLOORS.get(parts[1], FLOORS["hardattn"]) if len(parts) > 1 else FLOORS["hardattn"]


def test_imports_run_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder, path in modules()
        for name in imported(path)
        if (floor(name) or 0) > FLOORS[folder]
    ]
    assert not wrong, wrong


def test_nothing_imports_pickle_or_a_folder_by_its_bare_name() -> None:
    banned = {"pickle", "cloudpickle", "dill", "envs", "agents"}
    wrong = [f"{path}: {name}" for _, path in modules() for name in imported(path) if name.split(".")[0] in banned]
    assert not wrong, wrong


def test_the_package_list_names_every_folder_with_modules() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {settings["package-dir"].get(name, name.replace(".", "/")) for name in settings["packages"]}
    assert {str(path.parent.relative_to(ROOT)) for _, path in modules()} == listed


def test_the_version_is_the_same_everywhere() -> None:
    import hardattn

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == hardattn.__version__
    assert f"## {hardattn.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_public_function_goes_without_a_docstring() -> None:
    bare = [
        f"{path.name}:{node.name}"
        for _, path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and node.name not in ("forward", "draw", "watch", "step", "note")
    ]
    assert not bare, bare
