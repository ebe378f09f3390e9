"""Adding `cluster.id` to a configuration: one line, in the right place, or nothing at all."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from broker.errors import StartRefused
from broker.setup.config_file import pin_cluster

ID = "c1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[server]\nlisten = 'x'",
        "[cluster]\n[server]\n",
        "[cluster]",
        " [ cluster ] # ours\n",
        "[cluster]\nid = \"\"\n[server]\nlisten='a'\n",
        "[cluster]\nid = '' # later\n",
        "# [cluster]\n[server]\n",
        '[storage]\nurl = "é"\r\n',
    ],
)
def test_only_the_pin_is_added(tmp_path: Path, text: str) -> None:
    """Read as TOML, the file is what it was, with cluster.id; every line of text is still there."""
    path = tmp_path / "broker.toml"
    path.write_bytes(text.encode())
    pin_cluster(path, ID)
    before, after = tomllib.loads(text), tomllib.loads(path.read_text())
    assert after == {**before, "cluster": {"id": ID}}
    kept = [line for line in text.splitlines() if not line.startswith("id =")]
    assert [line for line in path.read_text().splitlines() if line in kept][: len(kept)] == kept


@pytest.mark.parametrize("text", ["cluster = {}\n", "cluster.x = 1\n", "[[cluster]]\n", "[cluster\n", "\xff"])
def test_a_file_without_a_sure_place_is_left_alone(tmp_path: Path, text: str) -> None:
    """Where the line cannot be placed, the file stays as it is and the message has the line to add."""
    path = tmp_path / "broker.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StartRefused, match='id = "c1"'):
        pin_cluster(path, ID)
    assert path.read_bytes() == text.encode("latin-1")


def test_another_pin_is_never_overwritten(tmp_path: Path) -> None:
    """A configuration that pins another cluster is refused, not changed."""
    path = tmp_path / "broker.toml"
    path.write_text('[cluster]\nid = "other"\n')
    with pytest.raises(StartRefused, match="other"):
        pin_cluster(path, ID)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A configuration behind a symbolic link is changed where it is; the link stays."""
    (tmp_path / "real.toml").write_text("")
    link = tmp_path / "broker.toml"
    link.symlink_to("real.toml")
    pin_cluster(link, ID)
    assert link.is_symlink()
    assert ID in (tmp_path / "real.toml").read_text()
