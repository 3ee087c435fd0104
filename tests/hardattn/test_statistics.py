import numpy as np
import pytest

from hardattn.statistics import (
    bins,
    calibration_error,
    holm,
    interquartile_mean,
    log_loss,
    mcnemar,
    mutual_information,
    paired_bootstrap,
    seeds_and_examples,
    wilson,
)


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


def test_calibration_on_paper() -> None:
    """Two bins: 0.6 twice, one right (off by 0.1); 0.5 once, wrong (off by 0.5): (2 * 0.1 + 1 * 0.5) / 3."""
    probabilities, labels = np.array([[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]]), np.array([0, 0, 1])
    assert bins(probabilities, labels, 2).tolist() == [[1, 0.5, 0], [2, pytest.approx(0.6), 0.5]]
    assert calibration_error(probabilities, labels, 2) == pytest.approx(0.7 / 3)
    assert calibration_error(np.eye(3), np.arange(3)) == 0
    assert log_loss(probabilities, labels) == pytest.approx(-(np.log(0.6) + np.log(0.4) + np.log(0.5)) / 3)
    assert log_loss(np.eye(2), np.array([1, 1])) == pytest.approx(-np.log(np.finfo(np.float32).tiny) / 2)


def test_holm_on_paper() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2 (below the one before, so the same), 0.2 x 1."""
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_interquartile_mean_on_paper() -> None:
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -50]) == 3.5  # the middle four are 2, 3, 4, 5
    assert interquartile_mean([1, 2, 6]) == 3  # a quarter of three is none


def test_the_bootstrap_over_seeds_and_examples() -> None:
    """One seed, 500 of 10,000 wrong: deviation sqrt(0.05 * 0.95 / 10,000) = 0.00218. Two seeds that differ spread wider."""
    wrong = np.zeros((1, 10_000), bool)
    wrong[:, :500] = True
    low, high = seeds_and_examples(wrong)
    assert low == pytest.approx(0.05 - 1.96 * 0.00218, abs=4e-4) and high == pytest.approx(0.05 + 1.96 * 0.00218, abs=4e-4)
    two = np.concatenate([wrong, np.roll(wrong, 500, axis=1) | wrong])  # 5 % and 10 %
    low, high = seeds_and_examples(two)
    assert low == pytest.approx(0.05, abs=5e-3) and high == pytest.approx(0.10, abs=6e-3)
    assert seeds_and_examples(two, two) == (0, 0)
    low, high = seeds_and_examples(two[1:], two[:1])  # the same examples: only those on which they differ spread
    assert low == pytest.approx(0.05 - 1.96 * 0.00218, abs=4e-4)
    with pytest.raises(ValueError, match="same seeds"):
        seeds_and_examples(two, wrong)


def test_mutual_information_on_paper() -> None:
    """A gate that is open for kind 1 alone tells all of a fair kind: 1 bit; one that is always open tells nothing.

    Open for half of kind 0 and all of kind 1, of 8: joint shares 1/4, 1/4, 0, 1/2; 1/4 log2(2) + 1/4 log2(2/3) + 1/2 log2(4/3).
    """
    kinds = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert mutual_information(kinds.astype(float), kinds) == pytest.approx(1.0)
    assert mutual_information(np.ones(8), kinds) == pytest.approx(0.0)
    wanted = 0.25 + 0.25 * np.log2(2 / 3) + 0.5 * np.log2(4 / 3)
    assert mutual_information(np.array([0, 0, 1, 1, 1, 1, 1, 1.0]), kinds) == pytest.approx(wanted)
