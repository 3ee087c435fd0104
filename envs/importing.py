"""From "package.module:name" to what it names, in the current folder or anything installed. Imports no torch."""

import importlib
import importlib.metadata
import inspect
import sys
from pathlib import Path
from typing import Any

from hardattn.envs.errors import HardattnError, UsageError, unknown


def import_object(path: str, kind: type | tuple[type, ...] = type) -> Any:
    """The object at "package.module:Name", the current folder searched first. Raises UsageError naming what is not there.

    Of the module's names the error suggests those of this `kind` (classes, unless told otherwise); the kind of the object itself
    is the caller's to check. Raises HardattnError for a module that fails while it is imported.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{path}: wanted module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            remedy = "; write it without .py" if module_name.endswith(".py") else ""
            raise UsageError(
                f"{path}: there is no module '{error.name}' in {here} or among the installed packages{remedy}"
            ) from error
        raise HardattnError(f"{path}: importing {module_name} failed: {error}") from error
    except Exception as error:  # whatever a user's module does at import
        raise HardattnError(f"{path}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        names = [
            name for name, value in vars(module).items() if isinstance(value, kind) and not _from_elsewhere(value, module_name)
        ]
        raise unknown("name in " + module_name, attribute, names or ["(nothing of this kind)"])
    return getattr(module, attribute)


def installed_agents() -> dict[str, str]:
    """The agents that installed packages declare as entry points of the group hardattn.agents: name -> "module:Class"."""
    entries = importlib.metadata.entry_points(group="hardattn.agents")
    return {entry.name: entry.value for entry in entries if ":" in entry.value}


def _from_elsewhere(value: Any, module_name: str) -> bool:
    """Whether a class or function was imported into a module. Other objects do not tell: they count as the module's own."""
    return (inspect.isclass(value) or inspect.isroutine(value)) and value.__module__ != module_name
