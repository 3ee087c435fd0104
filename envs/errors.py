"""Errors that a user can mend: one line that says what came, what was wanted and what to type next."""

import difflib
from collections.abc import Iterable


class HardattnError(Exception):
    """A failure with a remedy in its text. The command line prints it without a traceback and exits with 1."""

    exit_status = 1


class UsageError(HardattnError):
    """A wrong name, key or value: the command line exits with 2."""

    exit_status = 2


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UsageError:
    """The error for a name that is not in `known`, with the nearest name when one is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}."
    return UsageError(f"no {kind} is called '{name}'; {hint}{' ' + remedy if remedy else ''}")
