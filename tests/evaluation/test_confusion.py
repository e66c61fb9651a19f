"""A classifier's figures against scikit-learn's report."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report

from evaluation.confusion import class_scores, classifier_scores


def test_scores_by_hand() -> None:
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    found = classifier_scores(matrix)
    assert found["accuracy"] == 7 / 8
    assert found["recall"] == pytest.approx((3 / 4 + 1) / 2)  # the third class never occurs
    assert found["precision"] == pytest.approx((1 + 4 / 5) / 2)
    assert found["f1_score"] == pytest.approx((6 / 7 + 8 / 9) / 2)


def test_of_nothing_everything_is_zero() -> None:
    assert set(classifier_scores(np.zeros((3, 3), int)).values()) == {0.0}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
@settings(max_examples=80, deadline=None)
def test_equal_to_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, pred = np.array(pairs).T
    wanted = classification_report(true, pred, output_dict=True, zero_division=0)
    matrix = np.zeros((7, 7), int)
    np.add.at(matrix, (true, pred), 1)
    found = classifier_scores(matrix)
    assert found["accuracy"] == pytest.approx(np.mean(true == pred))
    means = wanted["macro avg"]
    for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1_score", "f1-score")):
        assert found[ours] == pytest.approx(means[theirs])
    scores = class_scores(matrix)
    for cls in set(true) | set(pred):
        row = wanted[str(cls)]
        assert scores.precision[cls] == pytest.approx(row["precision"])
        assert scores.recall[cls] == pytest.approx(row["recall"])
        assert scores.f1[cls] == pytest.approx(row["f1-score"])
        assert scores.support[cls] == row["support"]
