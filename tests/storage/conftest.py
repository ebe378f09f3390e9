"""Assertions inside the public laws explain themselves like those of the tests."""

import pytest

pytest.register_assert_rewrite("storage.conformance")
