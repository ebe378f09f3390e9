"""Wraps follow the configuration: all of them or none of a data key, whatever a KMS does meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.admin.asked import NewVersion
from broker.admin.errors import InUse
from broker.audit.entries import KeyChanged
from broker.errors import NotFound
from kms.local import add_version
from storage.port import Commit
from storage.records import RootRecord

ROOT = "admin:root"


async def put(house: Any, token: str = "github/ci", **more: Any) -> Any:
    return (await house.services.putter.put(NewVersion(token=token, value=b"s3cret", **more), actor=ROOT)).version


async def rewrap(house: Any, after: str | None = None, limit: int = 100) -> Any:
    return await house.services.rewrapper.rewrap("default", after=after, limit=limit, actor=ROOT)


async def value(house: Any) -> bytes:
    revealed = await house.services.revealer.reveal("github/ci", version=1, actor=ROOT)
    plain: bytes = revealed.value.reveal()
    return plain


def wrapped_by(house: Any) -> set[tuple[str, ...]]:
    """By which files each data key is wrapped."""
    return {tuple(wrap.kms_key.rpartition("/")[2] for wrap in key.wraps) for key in house.broker.authority.data_keys}


async def root_wrapped_by(house: Any) -> list[str]:
    record = await house.services.rewrapper.root_record()
    return [wrap.kms_key.rpartition("/")[2] for wrap in record.wraps]


async def test_a_cluster_moves_to_another_kms_key(open_house: Any, tmp_path: Path) -> None:
    """Add the new key, rewrap, take the old one out, rewrap, and nothing needs the old one: its file may go."""
    old, new = tmp_path / "kms.key", tmp_path / "new.key"
    async with open_house() as house:
        await put(house)
        await house.services.keys.rotate("default", actor=ROOT)
    async with open_house(old, new) as house:
        assert wrapped_by(house) == {("kms.key",)}
        done = await rewrap(house)
        assert (len(done.done), done.failed, done.remaining, done.next) == (2, (), 0, None)
        assert wrapped_by(house) == {("kms.key", "new.key")}
        assert (await house.services.rewrapper.rewrap_root(actor=ROOT)).done == ("root",)
        assert await root_wrapped_by(house) == ["kms.key", "new.key"]
    async with open_house(new) as house:
        await rewrap(house)
        await house.services.rewrapper.rewrap_root(actor=ROOT)
        assert wrapped_by(house) == {("new.key",)}
        assert await root_wrapped_by(house) == ["new.key"]
        assert await house.broker.authority.check() == []
    old.unlink()
    async with open_house(new) as house:
        assert await value(house) == b"s3cret"


async def test_what_is_in_line_is_left_alone(open_house: Any, tmp_path: Path) -> None:
    """A second run changes no row and records nothing."""
    async with open_house(tmp_path / "kms.key", tmp_path / "new.key") as house:
        await house.services.rewrapper.rewrap_root(actor=ROOT)
        before = [key.rev for key in house.broker.authority.data_keys], await house.recorded()
        assert (await rewrap(house)).done == ()
        assert (await house.services.rewrapper.rewrap_root(actor=ROOT)).done == ()
        assert ([key.rev for key in house.broker.authority.data_keys], await house.recorded()) == before


async def test_a_wrap_of_an_older_version_is_renewed(house: Any, tmp_path: Path) -> None:
    """Whoever rotates the KMS key gets every wrap, the root key's too, made by its new version."""
    await put(house)
    add_version(tmp_path / "kms.key")
    assert len((await rewrap(house)).done) == 1
    await house.services.rewrapper.rewrap_root(actor=ROOT)
    (key,) = house.broker.authority.data_keys
    root = await house.services.rewrapper.root_record()
    assert [wrap.key_version for wrap in (*key.wraps, *root.wraps)] == ["2", "2"]
    assert await value(house) == b"s3cret"


async def test_a_kms_key_that_is_away_leaves_every_wrap_as_it_was(open_house: Any, tmp_path: Path) -> None:
    """Each data key and the root key are reported and untouched; when it is back, the same call goes through."""
    new = tmp_path / "new.key"
    async with open_house() as house:
        await put(house)
    async with open_house(tmp_path / "kms.key", new) as house:
        before = {key.id: key for key in house.broker.authority.data_keys}
        new.rename(tmp_path / "away")
        done = await rewrap(house)
        assert (done.done, [failed.data_key for failed in done.failed]) == ((), list(before))
        assert {failed.error.code for failed in done.failed} == {"unavailable"}
        assert {key.id: key for key in house.broker.authority.data_keys} == before
        root = await house.services.rewrapper.rewrap_root(actor=ROOT)
        assert [failed.data_key for failed in root.failed] == ["root"]
        assert await root_wrapped_by(house) == ["kms.key"]
        (tmp_path / "away").rename(new)
        await house.clock.advance(60)
        assert len((await rewrap(house)).done) == 1
        assert wrapped_by(house) == {("kms.key", "new.key")}
        assert await value(house) == b"s3cret"


async def test_a_call_does_so_many_and_tells_where_to_go_on(open_house: Any, tmp_path: Path) -> None:
    """Walking with small calls reaches every data key, and counts down to nothing."""
    async with open_house(tmp_path / "kms.key") as house:
        for _ in range(4):
            await house.services.keys.rotate("default", actor=ROOT)
    async with open_house(tmp_path / "kms.key", tmp_path / "new.key") as house:
        after, left = None, []
        while True:
            done = await rewrap(house, after=after, limit=2)
            left.append(done.remaining)
            if (after := done.next) is None:
                break
        assert left == [3, 1, 0]
        assert wrapped_by(house) == {("kms.key", "new.key")}
        entries = [entry for entry in await house.recorded() if isinstance(entry, KeyChanged)]
        assert [entry.change for entry in entries].count("rewrapped") == 5


async def test_nobody_rewraps_a_keyring_that_is_not_there(house: Any) -> None:
    """It is named."""
    with pytest.raises(NotFound, match="none"):
        await house.services.rewrapper.rewrap("none", after=None, limit=1, actor=ROOT)


async def test_a_kms_key_is_retired_when_nothing_needs_it(open_house: Any, tmp_path: Path) -> None:
    """Its wraps go from every data key and the root key, on record; again, there is nothing left to do."""
    old, new = tmp_path / "kms.key", tmp_path / "new.key"
    async with open_house(old, new) as house:
        await put(house)
        await house.services.rewrapper.rewrap_root(actor=ROOT)
    async with open_house(new) as house:
        done = await house.services.retirer.retire(f"local:{old}", actor=ROOT)
        assert (done.data_keys, done.root) == (1, True)
        assert wrapped_by(house) == {("new.key",)}
        assert await root_wrapped_by(house) == ["new.key"]
        retired = [entry for entry in await house.recorded() if getattr(entry, "change", "") == "retired"]
        assert {(entry.data_key == "root", entry.kms_key) for entry in retired} == {
            (True, f"local:{old}"),
            (False, f"local:{old}"),
        }
        again = await house.services.retirer.retire(f"local:{old}", actor=ROOT)
        assert (again.data_keys, again.root) == (0, False)
        assert await value(house) == b"s3cret"
        assert await house.broker.authority.check() == []


async def test_a_kms_key_that_the_configuration_names_is_not_retired(house: Any, tmp_path: Path) -> None:
    """Neither under its name nor under the same key with other options, and the message says where it stands."""
    for name in (f"local:{tmp_path / 'kms.key'}", f"local:{tmp_path / 'kms.key'}?passphrase-file=/x"):
        with pytest.raises(InUse, match=r"\[kms\]"):
            await house.services.retirer.retire(name, actor=ROOT)


async def renamed(house: Any, name: str) -> None:
    """Let the wraps of every data key say that another KMS key made them."""
    for key in list(house.broker.authority.data_keys):
        wraps = tuple(msgspec.structs.replace(wrap, kms_key=name) for wrap in key.wraps)
        await house.broker.authority.commit(
            (), updates=[msgspec.structs.replace(key, rev=key.rev + 1, wraps=wraps, mac=b"")]
        )


async def test_a_kms_key_that_something_depends_on_is_not_retired(house: Any) -> None:
    """The data keys that nothing else opens are listed, up to ten, and keep their wraps."""
    for _ in range(12):
        await house.services.keys.rotate("default", actor=ROOT)
    await renamed(house, "local:/gone.key")
    before = {key.id: key for key in house.broker.authority.data_keys}
    with pytest.raises(InUse, match=r"13 keys .* and 3 more; run `key rewrap`") as refused:
        await house.services.retirer.retire("local:/gone.key", actor=ROOT)
    assert sum(key in refused.value.message for key in before) == 10
    assert {key.id: key for key in house.broker.authority.data_keys} == before


async def test_a_root_key_that_depends_on_it_keeps_a_kms_key(house: Any) -> None:
    """The root key is named, and its wraps stay."""
    record = await house.services.rewrapper.root_record()
    wraps = tuple(msgspec.structs.replace(wrap, kms_key="local:/gone.key") for wrap in record.wraps)
    after = msgspec.structs.replace(record, rev=record.rev + 1, wraps=wraps)
    await house.broker.storage.commit(Commit(updates=[after]))
    with pytest.raises(InUse, match="the root key"):
        await house.services.retirer.retire("local:/gone.key", actor=ROOT)
    assert await house.broker.storage.get(RootRecord, ("root",)) == after


async def test_a_destroyed_data_key_needs_no_wrap(open_house: Any, tmp_path: Path) -> None:
    """It is neither rewrapped nor does it hold up a retirement."""
    old, new = tmp_path / "kms.key", tmp_path / "new.key"
    async with open_house(old, new) as house:
        before = house.services.keys.keyring("default").active_data_key
        await house.services.keys.rotate("default", actor=ROOT)
        await house.services.retirer.destroy(before, actor=ROOT)
        assert len((await rewrap(house)).done) == 0
        assert house.services.keys.data_key(before).wraps == ()
