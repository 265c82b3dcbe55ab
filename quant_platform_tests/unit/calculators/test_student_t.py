"""Student's t against its closed forms of few degrees, against tables, and against its own inverse."""

import math

import numpy as np
import pytest

from quant_platform.calculators import _student_t

T = np.array([1e-3, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 1e3, 1e6])


def test_one_and_two_degrees_have_closed_forms():
    one = 2 / math.pi * np.arctan(1 / T)
    two = 2 / (np.sqrt(2 + T**2) * (np.sqrt(2 + T**2) + T))  # 1 - t/√(2 + t²) without its cancellation
    np.testing.assert_allclose(_student_t.two_sided(T, np.full(9, 1)), one, rtol=1e-13)
    np.testing.assert_allclose(_student_t.two_sided(T, np.full(9, 2)), two, rtol=1e-13)


@pytest.mark.parametrize("degrees", [4, 10, 60])
def test_even_degrees_are_a_finite_sum(degrees):
    # 1 - sin θ (1 + 1/2 cos² θ + 1·3/(2·4) cos⁴ θ + …), tan θ = t/√n, of n/2 terms.
    t = T[T < 30]
    cos2 = degrees / (degrees + t**2)
    terms = [math.prod((2 * k - 1) / (2 * k) for k in range(1, j + 1)) * cos2**j for j in range(degrees // 2)]
    expected = 1 - t / np.sqrt(degrees + t**2) * sum(terms)
    np.testing.assert_allclose(_student_t.two_sided(t, np.full(len(t), degrees)), expected, rtol=1e-12, atol=1e-15)


def test_critical_values_are_those_of_the_tables():
    found = _student_t.critical(0.95, np.array([1, 2, 5, 10, 30, 120]))
    np.testing.assert_allclose(found, [12.706, 4.303, 2.571, 2.228, 2.042, 1.980], atol=5e-4)
    assert _student_t.critical(0.99, np.array([4]))[0] == pytest.approx(4.604, abs=5e-4)
    assert _student_t.critical(0.95, np.array([1e7]))[0] == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize("confidence", [1e-6, 0.5, 0.9, 0.999999])
def test_critical_is_the_inverse(confidence):
    degrees = np.array([1, 2, 3, 17, 400])
    tail = _student_t.two_sided(_student_t.critical(confidence, degrees), degrees)
    np.testing.assert_allclose(tail, 1 - confidence, rtol=1e-9)


def test_no_degrees_and_no_number_give_none():
    assert np.isnan(_student_t.two_sided(np.array([1.0, math.nan]), np.array([0, 5]))).all()
    assert _student_t.two_sided(np.array([math.inf, -math.inf, 0.0]), np.full(3, 5)).tolist() == [0.0, 0.0, 1.0]
    assert np.isnan(_student_t.critical(0.95, np.array([0, -1]))).all()
    assert _student_t.critical(0.95, np.array([], dtype=int)).size == 0
