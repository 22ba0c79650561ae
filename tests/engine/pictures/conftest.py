"""What the tests of inputs and lists share."""

from __future__ import annotations

import os

import pytest

ANY_NAMES = [
    "é.jpg",
    "e\u0301.jpg",  # the same to the eye
    "👁️.jpg",
    " two  spaces .jpg",
    "line\nbreak.jpg",
    "-rf.jpg",
    "=cmd().jpg",
    'comma,and"quote.jpg',
    "x" * 251 + ".jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
]


@pytest.fixture(params=ANY_NAMES, ids=ascii)
def any_name(request) -> str:
    """A name that a picture's file may have, each in turn."""
    return request.param
