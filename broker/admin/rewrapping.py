"""Bring the wraps of data keys and of the root key in line with the KMS keys that the configuration names now.

Nothing is remembered between calls: what is out of line shows on the record, so whoever was cut off begins again. A
record gets all its new wraps, each opened again, in one commit, or keeps those it has. Sealed values are `resealing`'s
business, taking wraps out without new ones `retiring`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.admin.keys import KeyAdmin
from broker.admin.plan import Plan, carry_out
from broker.admin.stored import Stored
from broker.audit.entries import KeyChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError, Conflict, Tampered
from broker.vault.root import Root
from broker.vault.vault import Vault
from storage.records import DataKeyRecord, RootRecord, WrapRecord

ROOT: Final = "root"
"""What the root key is called where data keys are."""
REWRAP_MAX: Final = 100
"""Most data keys of one call."""
CALL_S: Final = 10.0
"""After so long a call ends with what it has done; each KMS call has its own deadline besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftAlone:
    """A key that kept the wraps it has, and why."""

    data_key: str
    error: BrokerError


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewrapped:
    """What one call did. remaining: keys behind it that are out of line too. next: go on behind this one, if so."""

    done: tuple[str, ...]
    failed: tuple[LeftAlone, ...]
    remaining: int
    next: str | None


def needs_rewrap(wraps: Sequence[WrapRecord], kms_keys: Sequence[str]) -> bool:
    """Whether these are not the wraps of exactly these KMS keys. Of which version each is, only the KMS key can say."""
    return {wrap.kms_key for wrap in wraps} != set(kms_keys)


class Rewrapper:
    """Wraps anew what is out of line. Serving goes on: a data key stays the same one, whoever wraps it."""

    def __init__(
        self, *, authority: Authority, stored: Stored, keys: KeyAdmin, vault: Vault, root: Root, clock: Clock
    ) -> None:
        self._authority = authority
        self._stored = stored
        self._keys = keys
        self._vault = vault
        self._root = root
        self._clock = clock

    async def rewrap(self, keyring: str, *, after: str | None, limit: int, actor: str) -> Rewrapped:
        """Rewrap at most `limit` data keys of the keyring, in the order of their names, those behind `after`.

        A key that one of its KMS keys does not wrap now is left as it was, and told. NotFound: no such keyring.
        """
        ring = self._keys.keyring(keyring)
        wanted = self._vault.kms_keys(ring)
        versions = await self._vault.key_versions(ring)
        behind = sorted(
            record.id
            for record in self._authority.data_keys
            if record.keyring == keyring
            and record.state != "destroyed"
            and (after is None or record.id > after)
            and _is_out_of_line(record.wraps, wanted, versions)
        )
        began = self._clock.monotonic()
        done: list[str] = []
        failed: list[LeftAlone] = []
        tried = 0
        for data_key in behind[:limit]:
            try:
                await self._rewrap(data_key, wanted, actor)
                done.append(data_key)
            except BrokerError as error:
                failed.append(LeftAlone(data_key=data_key, error=error))
            tried += 1
            if self._clock.monotonic() - began > CALL_S:
                break
        remaining = len(behind) - tried
        return Rewrapped(
            done=tuple(done),
            failed=tuple(failed),
            remaining=remaining,
            next=behind[tried - 1] if remaining else None,
        )

    async def rewrap_root(self, *, actor: str) -> Rewrapped:
        """Rewrap the root key, if it is out of line. Tampered: its row is missing."""
        wanted = self._vault.kms_keys(None)
        record = await self.root_record()
        if not _is_out_of_line(record.wraps, wanted, await self._vault.key_versions(None)):
            return Rewrapped(done=(), failed=(), remaining=0, next=None)
        try:
            await self.renew_root(self._entry("", ROOT, actor))
        except BrokerError as error:
            return Rewrapped(done=(), failed=(LeftAlone(data_key=ROOT, error=error),), remaining=0, next=None)
        return Rewrapped(done=(ROOT,), failed=(), remaining=0, next=None)

    async def root_record(self) -> RootRecord:
        """The row of the root key. It has no MAC: what its wraps hold is known by opening them. Tampered: none."""
        record = await self._stored.get(RootRecord, ("root",))
        if record is None:
            raise Tampered("the root key's row is missing from the database; restore it from a backup")
        return record

    async def renew_root(self, entry: KeyChanged) -> None:
        """Wrap the root key by exactly the KMS keys that it has now; the entry says why. Raises as `Vault.rewrap`."""
        fresh = await self._vault.rewrap_root(await self.root_record(), self._root)

        async def decide() -> Plan[None]:
            record = await self.root_record()
            if needs_rewrap(fresh.wraps, self._vault.kms_keys(None)):
                raise Conflict("the root key: kms.keys changed meanwhile; do it again")
            after = msgspec.structs.replace(record, rev=record.rev + 1, wraps=fresh.wraps)
            return Plan(result=None, entries=(entry,), updates=(after,))

        await carry_out(self._authority, decide)

    async def _rewrap(self, data_key: str, wanted: Sequence[str], actor: str) -> None:
        fresh = await self._vault.rewrap(self._keys.data_key(data_key), wanted)

        async def decide() -> Plan[None]:
            # Read again: seals may have been set aside meanwhile. The key that was wrapped is the same for ever.
            record: DataKeyRecord = self._keys.data_key(data_key)
            if record.state == "destroyed":
                return Plan(result=None, entries=())
            self._keys.check_wraps(self._keys.keyring(record.keyring), fresh.wraps)
            after = msgspec.structs.replace(record, rev=record.rev + 1, wraps=fresh.wraps, mac=b"")
            entry = self._entry(record.keyring, data_key, actor)
            return Plan(result=None, entries=(entry,), updates=(after,))

        await carry_out(self._authority, decide)

    def _entry(self, keyring: str, data_key: str, actor: str) -> KeyChanged:
        return KeyChanged(at=self._clock.now(), actor=actor, keyring=keyring, change="rewrapped", data_key=data_key)


def _is_out_of_line(wraps: Sequence[WrapRecord], wanted: Sequence[str], versions: Mapping[str, str]) -> bool:
    """Whether other KMS keys wrapped it, or another version of one of them. A silent KMS key's version is unknown."""
    return needs_rewrap(wraps, wanted) or any(versions.get(wrap.kms_key) != wrap.key_version for wrap in wraps)
