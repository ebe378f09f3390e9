"""Versions of a local key, and what a running key does when its file changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Corrupt, Disabled, KmsError, Unavailable
from kms.local import State, add_version, create_key_file, open_local, set_state
from kms.local.adapter import NOT_AN_HSM, UNSEALED
from kms.port import Kms, Wrap


async def test_a_running_key_wraps_with_a_version_added_meanwhile(kms: Kms, key_file: Path) -> None:
    """A new version is active with the next call, and what older ones wrapped still opens."""
    old = await kms.wrap(KEY, CONTEXT)
    assert add_version(key_file) == 2
    fresh = await kms.wrap(KEY, CONTEXT)
    assert (old.key_version, fresh.key_version) == ("1", "2")
    assert await kms.unwrap(old, CONTEXT) == await kms.unwrap(fresh, CONTEXT) == KEY


async def test_a_disabled_version_stops_at_the_next_call(kms: Kms, key_file: Path) -> None:
    """Disabling reaches a running key at once, for wraps of that version alone; enabling undoes it."""
    old = await kms.wrap(KEY, CONTEXT)
    add_version(key_file)
    fresh = await kms.wrap(KEY, CONTEXT)
    set_state(key_file, 1, State.DISABLED)
    with pytest.raises(Disabled, match="version 1"):
        await kms.unwrap(old, CONTEXT)
    assert await kms.unwrap(fresh, CONTEXT) == KEY
    set_state(key_file, 1, State.ENABLED)
    assert await kms.unwrap(old, CONTEXT) == KEY


async def test_a_disabled_active_version_stops_everything_but_describe(kms: Kms, key_file: Path) -> None:
    """With its active version disabled, a key neither wraps, generates nor passes its check, and says why."""
    wrap = await kms.wrap(KEY, CONTEXT)
    set_state(key_file, 1, State.DISABLED)
    for call in (kms.wrap(KEY, CONTEXT), kms.generate(CONTEXT), kms.check(), kms.unwrap(wrap, CONTEXT)):
        with pytest.raises(Disabled):
            await call
    assert (await kms.describe()).state == "disabled"


async def test_a_key_may_be_opened_while_disabled(key_file: Path) -> None:
    """A disabled key is no mistake in the file: it opens, and answers Disabled."""
    set_state(key_file, 1, State.DISABLED)
    async with open_local(f"local:{key_file}") as kms:
        with pytest.raises(Disabled):
            await kms.check()


async def test_describe_tells_what_the_key_is(kms: Kms, key_file: Path) -> None:
    """It is local, no HSM, and warns of what that means; the version is the active one."""
    add_version(key_file)
    description = await kms.describe()
    assert (description.provider, description.state, description.key_version) == ("local", "enabled", "2")
    assert description.hsm is False
    assert description.warnings == (NOT_AN_HSM, UNSEALED)


async def test_a_file_that_goes_away_is_an_outage(kms: Kms, key_file: Path) -> None:
    """A key whose file is missing is Unavailable until it is back."""
    wrap = await kms.wrap(KEY, CONTEXT)
    away = key_file.rename(key_file.with_name("away"))
    for call in (kms.wrap(KEY, CONTEXT), kms.unwrap(wrap, CONTEXT), kms.check(), kms.describe()):
        with pytest.raises(Unavailable, match="No such file") as caught:
            await call
        assert caught.value.kms_key == kms.uri
    away.rename(key_file)
    assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_file_that_opens_up_to_others_stops_the_key(kms: Kms, key_file: Path) -> None:
    """Permissions are a condition of use, not only of the start."""
    key_file.chmod(0o644)
    with pytest.raises(BadKey, match="chmod 600"):
        await kms.wrap(KEY, CONTEXT)
    key_file.chmod(0o600)
    await kms.wrap(KEY, CONTEXT)


async def test_a_file_that_is_damaged_stops_the_key(kms: Kms, key_file: Path) -> None:
    """A key whose file turns malformed is a BadKey each time, until the file is mended."""
    content = key_file.read_bytes()
    key_file.write_bytes(content[:-10])
    for _ in range(2):
        with pytest.raises(BadKey):
            await kms.wrap(KEY, CONTEXT)
    key_file.write_bytes(content)
    await kms.wrap(KEY, CONTEXT)


async def test_another_key_in_the_place_of_the_first_does_not_open(kms: Kms, key_file: Path) -> None:
    """When the file becomes another key, what the first one wrapped is Corrupt."""
    wrap = await kms.wrap(KEY, CONTEXT)
    key_file.unlink()
    create_key_file(key_file)
    with pytest.raises(Corrupt):
        await kms.unwrap(wrap, CONTEXT)


async def test_calls_that_meet_a_change_together_all_answer(kms: Kms, key_file: Path) -> None:
    """Many calls on a changed file read it and go on, each with the state that the file has."""
    wraps = [await kms.wrap(KEY, CONTEXT)]
    add_version(key_file)
    wraps.append(await kms.wrap(KEY, CONTEXT))
    set_state(key_file, 1, State.DISABLED)

    async def outcome(wrap: Wrap) -> object:
        try:
            return await kms.unwrap(wrap, CONTEXT)
        except KmsError as error:
            return type(error)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(wraps[index % 2])) for index in range(64)]
    assert [task.result() for task in tasks] == [Disabled, KEY] * 32


async def test_a_call_cancelled_while_reading_a_change_harms_no_other(kms: Kms, key_file: Path) -> None:
    """The call that found the change may be cancelled; the ones that waited for it answer."""
    wrap = await kms.wrap(KEY, CONTEXT)
    for _ in range(3):
        add_version(key_file)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(kms.unwrap(wrap, CONTEXT))
            others = [group.create_task(kms.unwrap(wrap, CONTEXT)) for _ in range(8)]
            await asyncio.sleep(0)
            first.cancel()
        assert first.cancelled()
        assert [other.result() for other in others] == [KEY] * 8


async def test_a_wrap_of_an_unknown_version_is_corrupt(kms: Kms) -> None:
    """A blob that names a version which the file does not have is refused with its number."""
    wrap = await kms.wrap(KEY, CONTEXT)
    blob = wrap.blob[:1] + (7).to_bytes(4, "big") + wrap.blob[5:]
    with pytest.raises(Corrupt, match="version 7"):
        await kms.unwrap(Wrap(key_version="7", blob=blob), CONTEXT)


async def test_a_blob_cannot_be_moved_to_another_version(kms: Kms, key_file: Path) -> None:
    """Naming another version of the same file does not open a blob."""
    wrap = await kms.wrap(KEY, CONTEXT)
    add_version(key_file)
    blob = wrap.blob[:1] + (2).to_bytes(4, "big") + wrap.blob[5:]
    with pytest.raises(Corrupt):
        await kms.unwrap(Wrap(key_version="2", blob=blob), CONTEXT)


async def test_record_and_blob_agree_on_the_version(kms: Kms) -> None:
    """A record that names another version than its blob was changed; one that names none is fine."""
    wrap = await kms.wrap(KEY, CONTEXT)
    assert await kms.unwrap(Wrap(key_version="", blob=wrap.blob), CONTEXT) == KEY
    with pytest.raises(Corrupt, match="another version"):
        await kms.unwrap(Wrap(key_version="2", blob=wrap.blob), CONTEXT)
