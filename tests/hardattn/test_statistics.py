import pytest

from hardattn.statistics import wilson


def test_wilson_against_published_numbers() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for (successes, trials), wanted in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(successes, trials) == pytest.approx(wanted, abs=1e-4)


def test_wilson_without_trials() -> None:
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)
