"""The port's bounds, checked the same way by every adapter before anything is queued or written.

Also how the entries of one audit block are framed. The numbers themselves are in `storage.port`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from storage.errors import Damaged, OutOfBounds
from storage.port import AUDIT_BYTES_MAX, AUDIT_ENTRY_MAX, COMMIT_MAX, COUNT_MAX, PAGE_MAX, Amended, AuditAppend, Commit


def check_commit(commit: Commit) -> int:
    """How many items the commit holds.

    OutOfBounds: more than `COMMIT_MAX`, an audit entry of a wrong size, or an amendment of something else.
    """
    parts = (commit.inserts, commit.updates, commit.deletes, commit.expects, commit.announce)
    items = sum(map(len, parts))
    if commit.audit is not None:
        items += len(commit.audit.entries)
        _check_audit(commit.audit)
    if items > COMMIT_MAX:
        raise OutOfBounds(f"one commit holds at most {COMMIT_MAX} items, this one has {items}; split it")
    for each in commit.updates:
        if isinstance(each, Amended):
            _check_amended(each)
    return items


def check_page(limit: int) -> None:
    """Pass when 1 <= limit <= PAGE_MAX. OutOfBounds: otherwise."""
    if not 1 <= limit <= PAGE_MAX:
        raise OutOfBounds(f"a page holds 1 to {PAGE_MAX} records, {limit} were asked for; page with `after`")


def check_count(limit: int) -> None:
    """Pass when 1 <= limit <= COUNT_MAX. OutOfBounds: otherwise."""
    if not 1 <= limit <= COUNT_MAX:
        raise OutOfBounds(f"one count counts 1 to {COUNT_MAX} records, {limit} were asked for")


def check_keys(count: int) -> None:
    """Pass when one `get_many` may ask for so many keys. OutOfBounds: more than PAGE_MAX."""
    if count > PAGE_MAX:
        raise OutOfBounds(f"one get_many takes at most {PAGE_MAX} keys, {count} were given; ask in parts")


def frame(entries: Sequence[bytes]) -> bytes:
    """The entries, each behind its length as 2 bytes, big-endian; sizes were checked by `check_commit`."""
    return b"".join([part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry)])


def unframe(block: bytes) -> Iterator[bytes]:
    """The entries of a framed block, in order. Damaged: the block ends inside an entry."""
    at = 0
    while at < len(block):
        size = int.from_bytes(block[at : at + 2], "big")
        entry = block[at + 2 : at + 2 + size]
        if size == 0 or len(entry) != size:
            raise Damaged(f"an audit block breaks off at byte {at} of {len(block)}; restore the newest backup")
        yield entry
        at += 2 + size


def _check_amended(amended: Amended) -> None:
    """What is stored is compared with `after` alone, so what is left out of it must be known to be the same."""
    before, after = amended
    kind = type(after)
    alike = type(before) is kind and after.rev == before.rev + 1
    for name in kind.table.key:
        alike = alike and getattr(before, name) == getattr(after, name)
    if not alike:
        raise OutOfBounds(f"table {kind.table.name!r}: an amendment goes from one revision of a record to the next one")


def _check_audit(audit: AuditAppend) -> None:
    sizes = list(map(len, audit.entries))
    if not sizes:
        raise OutOfBounds("an audit append holds at least one entry")
    if min(sizes) < 1 or max(sizes) > AUDIT_ENTRY_MAX:
        raise OutOfBounds(f"an audit entry is 1 to {AUDIT_ENTRY_MAX} bytes, one of these is not")
    if sum(sizes) > AUDIT_BYTES_MAX:
        raise OutOfBounds(f"the audit entries of one commit are at most {AUDIT_BYTES_MAX} bytes together; split it")
