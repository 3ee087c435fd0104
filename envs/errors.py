"""Errors that a user can mend: one line that says what came, what was wanted and what to type next."""

import difflib
from collections.abc import Iterable


class HardattnError(Exception):
    """A failure with a remedy in its text. The command line prints it without a traceback and exits with 1."""

    exit_status = 1


class UsageError(HardattnError):
    """A wrong name, key or value: the command line exits with 2."""

    exit_status = 2


def more_than_zero(config: object, *names: str) -> None:
    """Raise UsageError for the first of these numbers of a config that is not above 0; NaN is not."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UsageError(f"{name}={getattr(config, name)}: wanted more than 0")


def at_least(config: object, least: float, *names: str) -> None:
    """Raise UsageError for the first of these numbers of a config that is below `least`, or NaN."""
    for name in names:
        if not getattr(config, name) >= least:
            raise UsageError(f"{name}={getattr(config, name)}: wanted {least:g} or more")


def zero_to_one(config: object, *names: str) -> None:
    """Raise UsageError for the first of these numbers of a config that is not from 0 to 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{name}={getattr(config, name)}: wanted 0 to 1")


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UsageError:
    """The error for a name that is not in `known`, with the nearest name when one is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}."
    return UsageError(f"no {kind} is called '{name}'; {hint}{' ' + remedy if remedy else ''}")
