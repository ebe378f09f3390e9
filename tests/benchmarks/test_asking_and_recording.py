"""What a run of the bench does with its programs, and what it leaves in files."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import charts, results
from benchmarks.asking import NotAnswered, ask
from benchmarks.figures import Figure
from benchmarks.results import Run, section

MISSING = "no_such_program"


def figure(value: float, goal: float | None, *, at_least: bool = False) -> Figure:
    """A figure of this value and goal."""
    return Figure(
        name="lease", question="a lease", value=value, unit="echoes", goal=goal, detail="how", at_least=at_least
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which results and charts go."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(charts, "FOLDER", tmp_path)
    return tmp_path


def test_a_goal_is_met_up_to_itself() -> None:
    """In both directions."""
    assert figure(2.0, 2.0).verdict == "met"
    assert figure(8.0, 8.0, at_least=True).verdict == "met"


def test_a_goal_that_is_missed_says_by_how_much() -> None:
    """In hundredths of the goal, in both directions."""
    assert figure(3.0, 2.0).verdict == "missed by 50 %"
    assert figure(6.0, 8.0, at_least=True).verdict == "missed by 25 %"
    assert figure(7.97, 8.0, at_least=True).verdict == "missed by 0.4 %"


def test_programs_answer_in_figures() -> None:
    """A real one, quickly."""
    assert [each.name for each in ask("policy_size", quick=True)] == ["policy, new token", "policy, known token"]


def test_a_program_that_fails_is_told() -> None:
    """With its exit code; what went wrong it has printed itself."""
    with pytest.raises(NotAnswered, match="exit 1"):
        ask(MISSING, quick=True)


def test_a_program_that_takes_too_long_is_ended() -> None:
    """Rather than waited for."""
    with pytest.raises(NotAnswered, match="not done within"):
        ask("audit_verify", quick=False, limit_s=0.01)


def test_one_program_that_fails_leaves_the_others(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their answers are recorded, the failure beside them, and the exit code is 1."""
    monkeypatch.setattr(bench, "QUESTIONS", (MISSING, "policy_size"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--record"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    written = (files / "RESULTS.md").read_text()
    assert ended.value.code == 1
    assert f"Not answered: {MISSING} (exit 1)." in written
    assert "| deciding about a token asked for before, 10 000 grants against 10 |" in written


def test_charts_are_drawn_of_full_size_only(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their labels say how many of what there were."""
    monkeypatch.setattr(
        charts, "CHARTS", (charts.Chart("policy.svg", "title", "unit", (("policy, new token", "label"),)),)
    )
    asked = ["benchmarks", "policy_size", "--record"]
    monkeypatch.setattr(sys, "argv", [*asked, "--quick"])
    bench.main()
    assert not (files / "policy.svg").exists()
    monkeypatch.setattr(sys, "argv", asked)
    bench.main()
    assert (files / "policy.svg").exists()


def test_a_section_says_what_ran_where_and_what_was_missed() -> None:
    """All that is needed to judge it, or to run it again."""
    told = section(
        Run(
            at=datetime(2030, 1, 2, 3, 4, tzinfo=UTC),
            command="python -m benchmarks --record",
            commit="abc1234",
            machine="2 x a processor",
            measured={"cost": [figure(3.0, 2.0), figure(1.0, None)]},
            failed={},
            took_s={"cost": 12.4},
        )
    )
    assert told.splitlines() == [
        "## 2030-01-02 03:04 UTC",
        "",
        "`python -m benchmarks --record` at commit abc1234 on 2 x a processor.",
        "",
        "0 of 1 goals met; lease (missed by 50 %).",
        "",
        "| question | value | goal | | detail |",
        "| --- | --- | --- | --- | --- |",
        "| a lease | 3.00 echoes | <= 2 | missed by 50 % | how |",
        "| a lease | 1.00 echoes |  |  | how |",
        "",
        "Seconds that each question took: cost 12; 12 in all.",
    ]


def test_a_chart_is_left_as_it_is_unless_all_its_figures_are_there(files: Path) -> None:
    """A run of one question draws nothing from others' old numbers."""
    charts.draw([figure(1.0, None)])
    assert list(files.glob("*.svg")) == []
