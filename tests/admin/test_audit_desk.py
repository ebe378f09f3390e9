"""The audit log for auditors: newest first, exported whole, verified, proved."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest

from broker.admin.asked import NewVersion
from broker.admin.packing import scratch_folder, tar_of
from broker.audit.prove import check_proof
from broker.audit.verify import verify_export
from broker.errors import NotFound
from storage.catalog import open_storage
from storage.port import Commit
from storage.records import TokenRecord

ROOT = "admin:root"


async def fill(house, count=5):
    for number in range(count):
        await house.services.putter.put(NewVersion(token=f"t/{number}", value=b"x"), actor=ROOT)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_tail_is_whole_whatever_the_page(house, limit) -> None:
    """Walking page by page gives every entry once, newest first, whether blocks are cut or not."""
    await fill(house)
    seen, after = [], None
    while True:
        page = await house.services.audit.tail(after=after, limit=limit)
        assert len(page.entries) <= limit
        seen += [(entry.log, entry.seq) for entry in page.entries]
        if (after := page.next) is None:
            break
    assert seen == [(1, seq) for seq in range(len(seen) - 1, -1, -1)]
    assert len(seen) == 2 + 2 + 5  # opened and pinned; keyring and data key; versions


async def test_an_exported_archive_verifies_offline(house, tmp_path) -> None:
    """The streamed tar unpacks to an export that the offline verifier accepts; the scratch folder is empty again."""
    await fill(house)
    async with house.services.audit.exported() as chunks:
        archive = b"".join([chunk async for chunk in chunks])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    report = await asyncio.to_thread(verify_export, tmp_path / "out" / "audit", house.broker.journal.vkey)
    assert (report.ok, report.problems) == (True, [])
    assert [path.name for path in tmp_path.glob("stream-*")] == []


async def test_a_live_verification_finds_nothing_wrong(house) -> None:
    """On an untouched database: ok, with every entry counted."""
    await fill(house)
    report = await house.services.audit.verify()
    assert (report.ok, report.problems) == (True, [])
    assert report.entries == 9


async def test_a_live_verification_names_a_forged_row(house) -> None:
    """A row changed beneath the broker makes the verification fail, naming table and key."""
    await fill(house)
    record = await house.broker.storage.get(TokenRecord, ("t/0",))
    forged = msgspec.structs.replace(record, rev=record.rev + 1, disabled=True)
    await house.broker.storage.commit(Commit(updates=(forged,)))
    report = await house.services.audit.verify()
    assert not report.ok
    assert any("t/0" in problem for problem in report.problems)


async def test_a_proof_holds_with_the_verifier_key_alone(house) -> None:
    """An entry under a checkpoint is proved; one that is not there is NotFound."""
    await fill(house)
    await house.clock.advance(2)
    for _ in range(100):
        try:
            proof = await house.services.audit.prove(1, 3)
            break
        except NotFound:
            await house.clock.advance(1)
    entry = check_proof(msgspec.json.encode(proof), house.broker.journal.vkey)
    assert entry.actor in {ROOT, "system"}
    with pytest.raises(NotFound):
        await house.services.audit.prove(1, 999)


async def test_what_a_crash_left_in_the_scratch_folder_is_cleared(tmp_path) -> None:
    """A folder whose process is gone leaves with the next one made; one in use, or just made, stays."""
    old, young = tmp_path / "stream-old", tmp_path / "stream-young"
    for left in (old, young, tmp_path / "other"):
        left.mkdir()
    (old / "copy.db").write_bytes(b"x")
    long_ago = old.stat().st_mtime - 3600
    os.utime(old, (long_ago, long_ago))
    os.utime(tmp_path / "other", (long_ago, long_ago))
    async with scratch_folder(tmp_path) as used:
        os.utime(used, (long_ago, long_ago))
        async with scratch_folder(tmp_path):
            assert used.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "stream-young"]


async def test_archives_hold_files_of_any_size(tmp_path: Path) -> None:
    """Empty files, files of whole blocks and long names come out of the archive as they went in."""
    folder = tmp_path / "in"
    files = {"a": b"", "b/" + "n" * 120: b"x" * 512, "c": b"y" * 1025}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archive = b"".join([chunk async for chunk in tar_of(folder)])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {name.removeprefix("in/"): tar.extractfile(name).read() for name in tar.getnames()}
    assert found == files


async def test_a_backup_is_a_database_and_is_on_record(house, tmp_path) -> None:
    """The streamed copy opens as a database with the token in it, and leaves nothing in the scratch folder."""
    await fill(house, 1)
    async with house.services.snapshots.backup(actor=ROOT) as chunks:
        copy = b"".join([chunk async for chunk in chunks])
    (tmp_path / "copy.db").write_bytes(copy)
    async with open_storage(f"sqlite:///{tmp_path / 'copy.db'}") as storage:
        assert await storage.get(TokenRecord, ("t/0",)) is not None
    assert [path.name for path in tmp_path.glob("stream-*")] == []
    assert (await house.recorded())[-1].actor == ROOT
