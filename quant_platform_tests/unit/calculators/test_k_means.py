"""k-means of many windows: by hand, against a plain loop, and against every partition of a few points."""

import itertools

import numpy as np
import pytest

from quant_platform.calculators import _k_means
from quant_platform.calculators._k_means import farthest_points, k_means, lloyd


def one_window(rows):
    """Give one window of points, a row each, the layout of a batch."""
    points = np.array(rows, dtype=float).T[None]
    return points, np.ones((1, points.shape[2]), bool)


def labels_of(rows, clusters=3):
    labels, is_distinct = k_means(*one_window(rows), clusters)
    assert is_distinct.all()
    return labels[0].tolist()


def inertia(rows, labels):
    groups = {label: [row for row, own in zip(rows, labels, strict=True) if own == label] for label in labels}
    return sum(
        sum((x - m) ** 2 for row in group for x, m in zip(row, np.mean(group, axis=0), strict=True))
        for group in groups.values()
    )


def lloyd_in_a_loop(rows, centres):
    """Do what the textbook says, one point after the other."""
    rows, centres = [np.array(row) for row in rows], [np.array(centre) for centre in centres]
    labels = None
    while True:
        squares = [[float(((row - centre) ** 2).sum()) for centre in centres] for row in rows]
        nearest = [distances.index(min(distances)) for distances in squares]
        if nearest == labels:
            return labels
        labels = nearest
        for k in set(labels):
            centres[k] = np.mean([row for row, label in zip(rows, labels, strict=True) if label == k], axis=0)


def random_points(seed, points=40, features=6):
    """Some features continuous, some of two or three values, as trades have them."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(points, features))
    rows[:, 1] = random.choice([-1, 0, 1], points)
    rows[:, -1] = random.random(points) < 0.2
    return rows


def test_three_pairs_by_hand():
    # The start: the least point 0, the farthest from it 21, then of 10 and 11 (both 100 away) the lesser.
    rows = [[11], [0], [20], [1], [10], [21]]
    centres, is_distinct = farthest_points(*one_window(rows), 3)
    assert centres[0].tolist() == [[0], [21], [10]]
    assert is_distinct.all()
    assert labels_of(rows) == [2, 0, 1, 0, 2, 1]


def test_centres_move_to_the_means_of_their_points():
    # From 0, 10 and 5: 4 is nearest to 5 and 2 to 0; the means are then 2/3, 10 and 4.5.
    rows = [[0], [0], [2], [4], [5], [10]]
    assert labels_of(rows) == [0, 0, 0, 2, 2, 1]


def test_the_first_centre_is_the_least_point_feature_by_feature():
    rows = [[1, 5], [0, 7], [0, 3], [2, 0]]
    centres, _ = farthest_points(*one_window(rows), 2)
    assert centres[0].tolist() == [[0, 3], [0, 7]]


def test_of_two_equally_near_centres_the_lower_label():
    points, is_present = one_window([[0], [2], [1]])
    assert lloyd(points, is_present, np.array([[[0.0], [2.0]]])).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("rows", [[[1.0, 2.0]] * 5, [[1.0, 2.0], [1.0, 3.0]] * 3, [[4.0, 4.0]]])
def test_fewer_distinct_points_than_clusters_are_one_cluster(rows):
    labels, is_distinct = k_means(*one_window(rows), 3)
    assert not is_distinct.any()
    assert labels.tolist() == [[0] * len(rows)]


@pytest.mark.parametrize("seed", range(20))
def test_labels_equal_those_of_a_plain_loop(seed):
    rows = random_points(seed)
    centres, _ = farthest_points(*one_window(rows), 3)
    assert labels_of(rows) == lloyd_in_a_loop(rows, centres[0])


@pytest.mark.parametrize("seed", range(20))
def test_every_point_is_with_the_nearest_mean(seed):
    rows = random_points(seed)
    labels = labels_of(rows)
    means = [np.mean([row for row, own in zip(rows, labels, strict=True) if own == k], axis=0) for k in range(3)]
    for row, own in zip(rows, labels, strict=True):
        squares = [((row - mean) ** 2).sum() for mean in means]
        assert squares[own] == pytest.approx(min(squares), rel=1e-12)


def test_separated_groups_are_the_best_of_all_partitions():
    rows = [[0, 0], [1, 0], [0, 1], [9, 9], [9, 8], [-9, 7], [-8, 7], [-9, 8]]
    best = min(inertia(rows, partition) for partition in itertools.product(range(3), repeat=len(rows)))
    assert inertia(rows, labels_of(rows)) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_points_changes_nothing(seed):
    rows = random_points(seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    assert labels_of(rows[order]) == np.array(labels_of(rows))[order].tolist()


def test_windows_do_not_know_one_another():
    windows = [random_points(seed) for seed in range(7)]
    windows[3][:] = 1.0
    points = np.stack([rows.T for rows in windows])
    labels, is_distinct = k_means(points, np.ones((7, 40), bool), 3)
    assert is_distinct.tolist() == [True] * 3 + [False] + [True] * 3
    for rows, own in zip(windows, labels, strict=True):
        assert own.tolist() == k_means(*one_window(rows), 3)[0][0].tolist()


def test_points_that_are_not_present_change_nothing():
    rows = random_points(1)
    points, is_present = one_window(rows)
    points = np.concatenate([np.zeros((1, 6, 9)), points], axis=2)
    is_present = np.concatenate([np.zeros((1, 9), bool), is_present], axis=1)
    assert k_means(points, is_present, 3)[0][0, 9:].tolist() == labels_of(rows)


def test_a_centre_that_loses_its_points_stays_in_place():
    # At first -1 and 1 are nearest to 0; then the outer means, -1.6 and 1.6, take them, and 0 has none.
    points, is_present = one_window([[-1.6], [-1], [1], [1.6]])
    assert lloyd(points, is_present, np.array([[[-3.0], [0.0], [3.0]]])).tolist() == [[0, 0, 2, 2]]


def test_iterations_end(monkeypatch):
    # From 0 and 3, the first labels give 3 to the second centre; its mean 7.75 then loses 3 to the first.
    points, is_present = one_window([[0], [3], [8], [9], [11]])
    start = np.array([[[0.0], [3.0]]])
    assert lloyd(points, is_present, start.copy()).tolist() == [[0, 0, 1, 1, 1]]
    monkeypatch.setattr(_k_means, "_MAX_ITERATIONS", 1)
    assert lloyd(points, is_present, start.copy()).tolist() == [[0, 1, 1, 1, 1]]


def test_no_windows_give_no_labels():
    labels, is_distinct = k_means(np.zeros((0, 6, 5)), np.zeros((0, 5), bool), 3)
    assert (labels.shape, is_distinct.shape) == ((0, 5), (0,))
