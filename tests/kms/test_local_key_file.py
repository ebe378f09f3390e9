"""Key files on disk: how they are made, who may read them, and how they are changed."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from kms.errors import BadKey
from kms.local import State, add_version, create_key_file, open_local, set_state
from kms.local.document import VERSIONS_MAX, parse
from kms.private_files import read_private, refusal, replace_private


async def _open(path: Path) -> None:
    async with open_local(f"local:{path}"):
        pass


def test_a_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, the file has mode 0600, and nothing else is left in the folder."""
    path = tmp_path / "kms.key"
    for mask in (0o000, 0o777):
        before = os.umask(mask)
        try:
            create_key_file(path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


def test_every_key_file_is_another_key(tmp_path: Path) -> None:
    """Two files share neither key id nor keys."""
    documents = []
    for name in ("a", "b"):
        create_key_file(tmp_path / name)
        documents.append(parse((tmp_path / name).read_bytes()))
    assert documents[0].key_id != documents[1].key_id
    assert documents[0].versions[0].private_key != documents[1].versions[0].private_key


def test_making_a_key_file_never_overwrites(tmp_path: Path) -> None:
    """What is at the path stays, be it a file or a dangling link, and no temporary file is left."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(BadKey, match="never overwritten"):
            create_key_file(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A key file that cannot be written is a BadKey with path and reason."""
    with pytest.raises(BadKey, match=r"nowhere/kms\.key: No such file or directory"):
        create_key_file(tmp_path / "nowhere" / "kms.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o660, 0o777, 0o610, 0o601])
async def test_a_file_open_to_others_is_refused_with_the_remedy(key_file: Path, mode: int) -> None:
    """Any permission for group or others refuses the file, and says how to close it."""
    key_file.chmod(mode)
    with pytest.raises(BadKey, match=r"open to other users .*chmod 600"):
        await _open(key_file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
async def test_a_file_closed_to_others_is_accepted(key_file: Path, mode: int) -> None:
    """What the owner may do with the file does not matter."""
    key_file.chmod(mode)
    await _open(key_file)


def test_a_file_of_another_user_is_refused(key_file: Path) -> None:
    """A file that somebody else owns is one that he can change, so it is refused even to root."""
    status = key_file.stat()
    assert refusal(status, user=status.st_uid) is None
    reason = refusal(status, user=status.st_uid + 1)
    assert reason is not None
    assert f"belongs to user {status.st_uid}" in reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away; the rule itself is tested above")
async def test_a_file_given_to_another_user_cannot_be_opened(key_file: Path) -> None:
    """The rule about owners holds on the way that the adapter takes."""
    os.chown(key_file, 12345, -1)
    with pytest.raises(BadKey, match="belongs to user 12345"):
        await _open(key_file)


async def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A folder or a FIFO at the path is refused at once; nobody waits for a writer."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("fifo", "folder"):
        with pytest.raises(BadKey, match=r"regular file|directory"):
            await _open(tmp_path / name)


async def test_a_missing_file_is_a_bad_key_at_the_start(tmp_path: Path) -> None:
    """A path that leads nowhere is a mistake in the configuration."""
    with pytest.raises(BadKey, match="No such file"):
        await _open(tmp_path / "nowhere")


def test_reading_stops_at_the_bound(tmp_path: Path) -> None:
    """A file of the largest size is read, one byte more is refused."""
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.write_bytes(b"x" * 10)
    assert read_private(path, bytes_max=10) == b"x" * 10
    with pytest.raises(BadKey, match="larger than 9 bytes"):
        read_private(path, bytes_max=9)


def test_a_change_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """When a file cannot be replaced, the error passes, and no temporary file with key material is left."""
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_private(target, b"secret")
    assert list(tmp_path.iterdir()) == [target]


def test_changing_a_file_keeps_it_closed_and_leaves_nothing_behind(key_file: Path) -> None:
    """After each change the file has mode 0600 and is alone in its folder."""
    add_version(key_file)
    set_state(key_file, 1, State.DISABLED)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert list(key_file.parent.iterdir()) == [key_file]


def test_a_change_through_a_link_changes_the_file(key_file: Path) -> None:
    """A symbolic link to the key file stays a link."""
    link = key_file.with_name("link")
    link.symlink_to(key_file)
    assert add_version(link) == 2
    set_state(link, 1, State.DISABLED)
    assert link.is_symlink()
    assert [entry.state for entry in parse(key_file.read_bytes()).versions] == [State.DISABLED, State.ENABLED]


def test_two_changes_at_once_do_not_lose_one(key_file: Path) -> None:
    """While another process changes the file, a change is refused and can be tried again."""
    with key_file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for change in (lambda: add_version(key_file), lambda: set_state(key_file, 1, State.DISABLED)):
            with pytest.raises(BadKey, match="being changed by another process"):
                change()
    assert add_version(key_file) == 2


@pytest.mark.parametrize("version", [0, 2, -1])
def test_a_version_that_is_not_there_cannot_be_disabled(key_file: Path, version: int) -> None:
    """The error names the version, and the file stays as it was."""
    before = key_file.read_bytes()
    with pytest.raises(BadKey, match=f"no version {version}"):
        set_state(key_file, version, State.DISABLED)
    assert key_file.read_bytes() == before


def test_versions_have_a_bound(key_file: Path) -> None:
    """The 65th version is refused."""
    for number in range(2, VERSIONS_MAX + 1):
        assert add_version(key_file) == number
    with pytest.raises(BadKey, match="64 versions"):
        add_version(key_file)
    assert len(parse(key_file.read_bytes()).versions) == VERSIONS_MAX


def test_a_file_open_to_others_is_not_changed_either(key_file: Path) -> None:
    """Changing a key file trusts it no more than opening it does."""
    key_file.chmod(0o640)
    with pytest.raises(BadKey, match="chmod 600"):
        add_version(key_file)
