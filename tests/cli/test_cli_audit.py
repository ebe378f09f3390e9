"""`audit`: take the log away, verify it without the broker, prove one entry, and notice what was altered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def exported(house: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the shared broker's log."""
    house.shell.ok("token", "put", "audited/a", stdin=b"x")
    out = tmp_path_factory.mktemp("audit") / "export"
    told = house.shell.json("audit", "export", "--out", out)
    assert told["export"] == str(out)
    return out


def test_an_export_verifies_offline(shell: Any, house: Any, exported: Path) -> None:
    """Without a broker or a credential, under the pinned key: ok, with counts, exit code 0."""
    report = shell.json("audit", "verify", exported, "--key", house.folder / "audit.vkey")
    assert report["ok"] is True
    assert report["problems"] == []
    assert report["entries"] > 5
    assert report["checkpoints"] > 0


def test_an_altered_export_does_not_verify(shell: Any, house: Any, exported: Path, tmp_path: Path) -> None:
    """One changed letter in one entry: exit code 3, `ok` false, and a problem that names the log."""
    altered = tmp_path / "altered"
    shutil.copytree(exported, altered)
    bundle = next(path for path in sorted(altered.rglob("tile/entries/*")) if path.is_file() or path.is_dir())
    bundle = bundle if bundle.is_file() else next(path for path in bundle.rglob("*") if path.is_file())
    bundle.write_bytes(bundle.read_bytes().replace(b"system", b"sistem", 1))
    ran = shell.run("audit", "verify", altered, "--key", house.folder / "audit.vkey", "--json")
    assert (ran.code, ran.document["ok"]) == (3, False)
    assert any("log 1" in problem for problem in ran.document["problems"])
    assert "does not verify" in ran.complaint


def test_another_clusters_key_does_not_verify(shell: Any, exported: Path, initialise_in: Any, tmp_path: Path) -> None:
    """Whoever pinned another cluster's key is told, with exit code 3."""
    initialise_in(tmp_path / "other")
    assert shell.run("audit", "verify", exported, "--key", tmp_path / "other" / "audit.vkey").code == 3


def test_the_database_verifies_live(house: Any) -> None:
    """--live has the broker verify its log and its signed rows."""
    assert house.shell.json("audit", "verify", "--live")["ok"] is True


def test_the_tail_is_the_newest_entries_in_order(house: Any) -> None:
    """tail prints places and facts, oldest first, and as many as asked for."""
    house.shell.ok("token", "put", "audited/b", stdin=b"x")
    entries = house.shell.json("audit", "tail", "--lines", 3)
    assert len(entries) == 3
    assert [entry["seq"] for entry in entries] == sorted(entry["seq"] for entry in entries)
    assert entries[-1]["entry"]["token"] == "audited/b"
    last = house.shell.ok("audit", "tail", "-n", 1).out
    assert last.startswith(f"{entries[-1]['log']}:{entries[-1]['seq']} ")


def test_an_entry_is_proved_and_the_proof_checked_elsewhere(shell: Any, house: Any, tmp_path: Path) -> None:
    """The proof verifies with the key alone; with one letter changed it does not, and the exit code is 3."""
    vkey, proof = house.folder / "audit.vkey", tmp_path / "proof.json"
    proof.write_text(house.shell.ok("audit", "prove", "1:0").out)
    told = shell.json("audit", "check", proof, "--key", vkey)
    assert (told["ok"], told["entry"]["event"]) == (True, "log.opened")
    proof.write_text(proof.read_text().replace("log.opened", "log.opaned"))
    ran = shell.run("audit", "check", proof, "--key", vkey, "--json")
    assert (ran.code, ran.document["ok"]) == (3, False)


def test_an_entry_that_is_not_there_cannot_be_proved(house: Any) -> None:
    """The broker refuses with one line; what is no place at all is a usage error."""
    assert "999999" in house.shell.refused("audit", "prove", "1:999999")
    assert house.shell.run("audit", "prove", "first").code == 2


def test_an_export_overwrites_nothing(house: Any, exported: Path, tmp_path: Path) -> None:
    """A folder that exists, or whose parent does not, is refused before anything is asked."""
    before = sorted(exported.rglob("*"))
    assert "exists" in house.shell.refused("audit", "export", "--out", exported)
    assert sorted(exported.rglob("*")) == before
    assert "no folder" in house.shell.refused("audit", "export", "--out", tmp_path / "a" / "b")


@pytest.mark.parametrize("arguments", [(), ("d", "--live"), ("--live", "--key", "k")])
def test_verify_wants_an_export_or_the_broker(house: Any, arguments: tuple[str, ...]) -> None:
    """Neither or both is a usage error."""
    assert house.shell.run("audit", "verify", *arguments).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "is no folder"),
        (("EXPORT", "--anchors", "nowhere"), "no file"),
        (("EXPORT", "--key", "PROOF"), "unfit"),
    ],
)
def test_what_cannot_be_verified_at_all_is_a_failure(
    shell: Any, exported: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """A folder, key or anchor file that is not there or not what it should be is exit code 1, not 3."""
    (tmp_path / "proof").write_text("no key")
    places = {"EXPORT": str(exported), "PROOF": str(tmp_path / "proof")}
    assert said in shell.refused("audit", "verify", *(places.get(each, each) for each in arguments))


def test_an_archive_cannot_leave_its_folder(tmp_path: Path) -> None:
    """An export whose names lead outside, or that holds a link, leaves nothing at all."""
    import asyncio
    import io
    import tarfile

    from broker.cli.arriving import receive_folder
    from broker.cli.failures import CommandFailed

    def archive(member: tarfile.TarInfo) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
        return packed.getvalue()

    link = tarfile.TarInfo("audit/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
    plain = [tarfile.TarInfo(name) for name in ("audit/../../outside", "/outside", "top")]
    for member in plain:
        member.size = 1

    async def unpack(content: bytes) -> None:
        async def chunks() -> Any:
            yield content

        await receive_folder(chunks(), tmp_path / "in" / "export")

    (tmp_path / "in").mkdir()
    for member in (*plain, link):
        with pytest.raises(CommandFailed):
            asyncio.run(unpack(archive(member)))
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


def test_a_tail_is_one_document(house: Any) -> None:
    """--follow never ends, so it refuses --json; and a document is JSON to its last byte."""
    assert house.shell.run("audit", "tail", "--follow", "--json").code == 2
    json.loads(house.shell.ok("audit", "tail", "--json").out)
