"""What no file of the repository may hold, and what every Python file has."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX = 600
# Put together here, so that this file does not hold what it looks for.
HOSTS = ["py" + "pi.org", "python" + "hosted", "npm" + "js.org", "crates" + ".io"]
LEFTOVER = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "HA" + "CK")) + r")\b")
MACHINE = re.compile(r"(?<![\w.…-])/(?:" + "|".join(("root", "work", "tmp")) + r")/\w")
"""An absolute path of the machine that this was written on."""


def files() -> list[Path]:
    """The files of the repository: what git knows, and in a copy without git what is there."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    away = {".venv", ".git", "build", "dist"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not away & set(path.relative_to(ROOT).parts)]


FILES = files()
PYTHON = [path for path in FILES if path.suffix == ".py"]


def test_no_file_names_a_registry_or_this_machine() -> None:
    """A clone works anywhere: nothing points at a package registry's host or at somebody's folders."""
    found = []
    for path in FILES:
        text = path.read_bytes().decode("utf-8", "replace")
        found += [(str(path.relative_to(ROOT)), word) for word in (*HOSTS, *MACHINE.findall(text)) if word in text]
    assert found == []


def test_nothing_is_left_for_later() -> None:
    """What is not done is in an issue or a decision record, not in a comment."""
    found = []
    for path in FILES:
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
            if LEFTOVER.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


@pytest.mark.parametrize("folder", ["tests", "config"])
def test_no_package_where_none_belongs(folder: str) -> None:
    """An __init__.py under tests/ would shadow the roots of the same names."""
    assert [path for path in FILES if path.name == "__init__.py" and path.is_relative_to(ROOT / folder)] == []


def test_every_python_file_is_short_and_says_what_it_is() -> None:
    """A file has a docstring, and at most 600 lines."""
    found = []
    for path in PYTHON:
        text = path.read_text(encoding="utf-8")
        if ast.get_docstring(ast.parse(text)) is None:
            found.append(f"{path.relative_to(ROOT)}: no docstring")
        if text.count("\n") > LINES_MAX:
            found.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
    assert found == []
