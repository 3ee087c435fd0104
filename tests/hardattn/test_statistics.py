import pytest

from hardattn.statistics import mcnemar, paired_bootstrap, wilson


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


def test_mcnemar_on_paper() -> None:
    """Of 8 examples on which two models differ, one has 1 wrong and the other 7: p = 2 (1 + 8) / 2^8 = 0.0703."""
    one, other = [True] + [False] * 7 + [True] * 5, [False] + [True] * 7 + [True] * 5
    assert mcnemar(one, other) == (1, 7, pytest.approx(18 / 256))
    assert mcnemar(other, one) == (7, 1, pytest.approx(18 / 256))
    assert mcnemar(one, one) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="13 and 12 examples"):
        mcnemar(one, other[:-1])


def test_the_paired_bootstrap_on_paper() -> None:
    """100 alone and 60 besides among 10,000: the difference is 0.4 points, deviation sqrt(159.84) / 10,000 = 0.1264 points."""
    one = [True] * 100 + [False] * 9900
    other = [False] * 100 + [True] * 60 + [False] * 9840
    low, high = paired_bootstrap(one, other)
    assert low == pytest.approx(0.004 - 1.96 * 0.001264, abs=2e-4) and high == pytest.approx(0.004 + 1.96 * 0.001264, abs=2e-4)
    assert paired_bootstrap(one, one) == (0, 0)
