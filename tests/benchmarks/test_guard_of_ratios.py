"""What the guard of recorded ratios lets pass, and what it stops at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import guard as guarding
from benchmarks.__main__ import GUARDED, PEERS, QUESTIONS
from benchmarks.charts import Chart, svg
from benchmarks.figures import Figure


def figure(value: float, name: str = "lease") -> Figure:
    """A figure of this value."""
    return Figure(name=name, question="a question", value=value, unit="echoes", goal=2.0, detail="<how>")


@pytest.fixture(autouse=True)
def _baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"lease": 3.0}))
    monkeypatch.setattr(guarding, "BASELINE", baseline)


def test_a_ratio_worse_by_less_than_a_third_passes() -> None:
    """It is not even measured again."""
    assert guarding.guard({"cost": [figure(3.99)]}, lambda _: pytest.fail("measured again")) == []


def test_a_ratio_worse_once_passes() -> None:
    """What the second measurement does not confirm was the machine."""
    assert guarding.guard({"cost": [figure(9.0)]}, lambda _: [figure(3.1)]) == []


def test_a_ratio_worse_twice_is_told() -> None:
    """With what was measured and what is recorded; what is not guarded is not looked at."""
    lines = guarding.guard({"cost": [figure(9.0), figure(9.0, "other")]}, lambda _: [figure(4.1), figure(9.0, "other")])
    assert len(lines) == 1
    assert "4.10 echoes, recorded 3.00" in lines[0]


def test_only_what_is_guarded_is_recorded() -> None:
    """A new baseline has the same names as the old one."""
    guarding.record([figure(2.5), figure(9.0, "other")])
    assert json.loads(guarding.BASELINE.read_text()) == {"lease": 2.5}


def test_guarded_questions_exist() -> None:
    """The quick run asks nothing that is not there, and each question has a program of its own."""
    assert set(GUARDED) <= set(QUESTIONS)
    programs = Path(guarding.__file__).parent.glob("*.py")
    assert {*QUESTIONS, *PEERS} <= {path.stem for path in programs if path.read_text().endswith("    alone(figures)\n")}


def test_a_chart_shows_its_figures_as_text() -> None:
    """Names and values can be read by those who see no bars; markup in a name is text."""
    drawn = svg(Chart("a.svg", "<title>", "echoes", (("lease", "one & two"),)), {"lease": figure(1.5)})
    assert "one &amp; two 1.50" in drawn
    assert "<title>&lt;title&gt;" in drawn


def test_a_chart_tells_what_is_missed_in_words() -> None:
    """Colour alone tells nothing to some."""
    drawn = svg(Chart("a.svg", "title", "echoes", (("lease", "a lease"),)), {"lease": figure(3.0)})
    assert "goal ≤ 2, missed by 50 %" in drawn
    assert 'class="missed"' in drawn
