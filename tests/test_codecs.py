from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit.codecs import JSON

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_what_json_can_tell_comes_back(value: Any) -> None:
    assert JSON.decode(JSON.encode(value)) == value


def test_a_text_is_kept_in_as_few_bytes_as_it_has() -> None:
    assert JSON.encode({"word": "好"}) == '{"word":"好"}'.encode()


def test_what_json_cannot_tell_is_refused() -> None:
    with pytest.raises(TypeError):
        JSON.encode({1, 2})
    with pytest.raises(ValueError, match="Expecting"):
        JSON.decode(b"{")
