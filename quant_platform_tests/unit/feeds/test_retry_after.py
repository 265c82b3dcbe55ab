"""Retry-After in both of its forms, and what is neither."""

import httpx
import pytest
from websockets.datastructures import Headers

from quant_platform.feeds.retry_after import retry_after_s

NOON = "Thu, 08 Aug 2024 12:00:00 GMT"


@pytest.mark.parametrize("headers_of", [httpx.Headers, Headers, dict])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "Thu, 08 Aug 2024 12:00:30 GMT", "Date": NOON}, 30.0),
        ({"Retry-After": "Thu, 08 Aug 2024 11:59:00 GMT", "Date": NOON}, 0.0),
        ({"Retry-After": "Thu, 08 Aug 2024 12:00:30 GMT"}, None),  # no clock of the server to hold it against
        ({"Retry-After": "soon", "Date": NOON}, None),
        ({"Retry-After": "-5", "Date": NOON}, None),
        ({}, None),
    ],
)
def test_pause_that_an_answer_asks_for(headers_of, headers, expected):
    assert retry_after_s(headers_of(headers)) == expected
