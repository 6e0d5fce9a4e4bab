"""The tests of many cases: all are run, and each that fails is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.thinned import each


def test_each_case_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @each("number", lambda: range(4))
    @each("word, other", [("a", 1), ("b", 2)])
    def cases(
        word: str, other: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen.append((word, number, tmp_path))
        assert not any(tmp_path.iterdir())
        (tmp_path / "x").touch()
        if number == 2:
            pytest.skip("hidden")
        monkeypatch.setenv("LSTMCONVERT_TESTS", "changed")
        assert (word, number) != ("b", 1), other

    with pytest.raises(BaseExceptionGroup, match=r"3 of 8 cases: a-1-2; b-2-1; b-2-2$"):
        cases(tmp_path=tmp_path, monkeypatch=monkeypatch)
    assert len({path for _, _, path in seen}) == 8
    with pytest.raises(AssertionError):
        each("text", [])(print)()
