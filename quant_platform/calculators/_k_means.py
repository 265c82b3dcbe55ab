"""k-means of many small windows at once, always with the same answer. What the points mean belongs elsewhere.

Lloyd's iterations, from a start that is a function of the set of points alone. Arrays are windows x features x points.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MAX_ITERATIONS = 300  # rounding could let a point on the border go to and fro


def k_means(points: Array, is_present: Array, clusters: int) -> tuple[Array, Array]:
    """Return each point's cluster, and whether a window has as many distinct points as there are clusters.

    Args:
        points: Windows x features x points, finite; 0 where not present.
        is_present: Windows x points; at least one point of each window.
        clusters: Number of clusters.

    Returns:
        Windows x points labels from 0, those of the nearest centre where the centres are the means of their points;
        of two equally near centres the lower label. Labels of points that are not present mean nothing. A window
        with too few distinct points has label 0 throughout. A cluster can end up empty, though not at the start.
    """
    centres, is_distinct = farthest_points(points, is_present, clusters)
    labels = np.zeros(is_present.shape, np.int8)
    labels[is_distinct] = lloyd(points[is_distinct], is_present[is_distinct], centres[is_distinct])
    return labels, is_distinct


def farthest_points(points: Array, is_present: Array, clusters: int) -> tuple[Array, Array]:
    """Return windows x clusters x features centres to start from, and whether they all differ.

    The first is the least point, by its first feature, then the second, and so on; each next one is the point
    farthest from all before it, the least of these if several are.
    """
    centres = np.empty((len(points), clusters, points.shape[1]))
    distance = np.where(is_present, np.inf, -1.0)
    for k in range(clusters):
        farthest = distance.max(axis=1, keepdims=True)
        least = _least(points, distance == farthest)
        centres[:, k] = np.take_along_axis(points, least[:, None, None], axis=2)[..., 0]
        distance = np.minimum(distance, ((points - centres[:, k, :, None]) ** 2).sum(axis=1))
    return centres, farthest[:, 0] > 0


def lloyd(points: Array, is_present: Array, centres: Array) -> Array:
    """Return windows x points labels once no point is nearer to another centre than to its own.

    Args:
        points: Windows x features x points; 0 where not present.
        is_present: Windows x points.
        centres: Windows x clusters x features, where to start. A centre that loses all its points stays in place.
    """
    # A last feature of 1 carries |c|^2 into the distances, and the counts into the sums.
    points = np.concatenate([points, is_present[:, None, :].astype(float)], axis=1)
    names = np.arange(centres.shape[1], dtype=np.int8)[:, None]
    labels = np.full(is_present.shape, -1, np.int8)
    moving = np.arange(len(points))
    for _ in range(_MAX_ITERATIONS):
        if not len(moving):
            break
        distances = np.concatenate([-2 * centres, (centres**2).sum(axis=2, keepdims=True)], axis=2) @ points
        nearest = _nearest(distances)
        has_moved = (nearest != labels[moving]).any(axis=1)
        labels[moving] = nearest
        moving, points, centres = moving[has_moved], points[has_moved], centres[has_moved]
        is_member = (nearest[has_moved][:, None, :] == names).astype(float)
        sums = is_member @ points.transpose(0, 2, 1)
        counts = sums[..., -1:]
        np.divide(sums[..., :-1], counts, out=centres, where=counts > 0)
    return labels


def _nearest(distances: Array) -> Array:
    best, label = distances[:, 0], np.zeros(distances[:, 0].shape, np.int8)
    for k in range(1, distances.shape[1]):
        label = np.maximum(label, np.int8(k) * (distances[:, k] < best))
        best = np.minimum(best, distances[:, k])
    return label


def _least(points: Array, is_candidate: Array) -> Array:
    """Return the place of the least candidate, comparing feature by feature."""
    for feature in range(points.shape[1]):
        if np.count_nonzero(is_candidate) == len(points):
            break
        values = np.where(is_candidate, points[:, feature], np.inf)
        is_candidate = values == values.min(axis=1, keepdims=True)
    place: Array = is_candidate.argmax(axis=1)
    return place
