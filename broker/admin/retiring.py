"""End keys for good: destroy a data key that seals nothing, take the wraps of a KMS key out that nothing needs.

Both are refused with a list of what still depends on the key, and both are undone by nothing but a backup. Making
other keys ready to take over is `rewrapping`'s and `resealing`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.admin.errors import InUse
from broker.admin.keys import URI_CHARS_MAX, KeyAdmin
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.rewrapping import ROOT, Rewrapper
from broker.admin.stored import Stored
from broker.audit.entries import KeyChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BadRequest
from broker.vault.vault import Vault
from broker.vault.wrapping import is_same_key
from storage.records import DataKeyRecord, IssuedRecord, KeyringRecord, VersionRecord, WrapRecord

NAMED_MAX: Final = 10
"""How many of those that depend on a key a refusal names."""
COUNTED_MAX: Final = 10_000
"""How many versions a refusal counts; beyond it says "at least"."""
RETIRE_MAX: Final = 500
"""Data keys whose wraps are taken out in one commit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retired:
    """How many data keys lost the wrap of this KMS key, and whether the root key did."""

    kms_key: str
    data_keys: int
    root: bool


class Retirer:
    """Ends keys."""

    def __init__(
        self,
        *,
        authority: Authority,
        stored: Stored,
        keys: KeyAdmin,
        rewrapper: Rewrapper,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._stored = stored
        self._keys = keys
        self._rewrapper = rewrapper
        self._vault = vault
        self._clock = clock

    async def destroy(self, data_key: str, *, actor: str, if_match: int | None = None) -> DataKeyRecord:
        """Take every wrap out of a data key, so that nobody can ever open it; one that is destroyed stays so.

        InUse: it is active, or versions are sealed under it, some of which are named, or values that were made for
        leases are. NotFound; PreconditionFailed.
        """

        async def decide() -> Plan[DataKeyRecord]:
            record = self._keys.data_key(data_key)
            check_revision(f"data key {data_key}", record, if_match)
            if record.state == "destroyed":
                return Plan(result=record, entries=())
            if record.state == "active":
                raise InUse(f"data key {data_key} is the active one of keyring {record.keyring}; rotate that first")
            # No row can be added after this look: commits of sealed rows rely on their data key being the active one.
            await self._check_unused(data_key)
            after = msgspec.structs.replace(record, rev=record.rev + 1, state="destroyed", wraps=(), mac=b"")
            return Plan(result=after, entries=(self._entry("destroyed", after, actor),), updates=(after,))

        return await carry_out(self._authority, decide)

    async def retire(self, kms_key: str, *, actor: str) -> Retired:
        """Take the wraps of a KMS key out of every data key and of the root key; the KMS key may be deleted then.

        InUse: the configuration names it, or a data key or the root key has no wrap of another KMS key that is
        configured and opens what it wraps; some are named. Cut short, it has done some; doing it again goes on.
        """
        if not 1 <= len(kms_key) <= URI_CHARS_MAX:
            raise BadRequest(f"kms_key: a key URI has 1 to {URI_CHARS_MAX} characters")
        self._check_not_configured(kms_key)
        root = await self._rewrapper.root_record()
        in_root = _has_wrap_of(root.wraps, kms_key)
        stranded = [record.id for record in self._wrapped_by(kms_key) if not self._opens_without(record, kms_key)]
        if in_root and not self._live(root.wraps, kms_key, self._vault.kms_keys(None)):
            stranded = [f"{ROOT} (the root key)", *stranded]
        if stranded:
            raise InUse(
                f"KMS key {kms_key}: {len(stranded)} keys are wrapped by no other configured KMS key that opens them: "
                f"{_named(stranded, len(stranded))}; run `key rewrap`, then retire it"
            )
        if in_root:
            entry = KeyChanged(
                at=self._clock.now(), actor=actor, keyring="", change="retired", data_key=ROOT, kms_key=kms_key
            )
            await self._rewrapper.renew_root(entry)
        retired = 0
        while taken := await self._take_out(kms_key, actor):
            retired += taken
        return Retired(kms_key=kms_key, data_keys=retired, root=in_root)

    async def _take_out(self, kms_key: str, actor: str) -> int:
        """Take it out of some data keys in one commit; of how many. InUse: one would be left without a live wrap."""

        async def decide() -> Plan[int]:
            holders = sorted(self._wrapped_by(kms_key), key=lambda record: record.id)[:RETIRE_MAX]
            if stranded := [record.id for record in holders if not self._opens_without(record, kms_key)]:
                raise InUse(f"KMS key {kms_key}: {stranded[0]} would be left without a wrap; run `key rewrap` first")
            after = tuple(
                msgspec.structs.replace(
                    record,
                    rev=record.rev + 1,
                    wraps=tuple(wrap for wrap in record.wraps if wrap.kms_key != kms_key),
                    mac=b"",
                )
                for record in holders
            )
            entries = tuple(self._entry("retired", record, actor, kms_key) for record in after)
            return Plan(result=len(after), entries=entries, updates=after)

        return await carry_out(self._authority, decide)

    async def _check_unused(self, data_key: str) -> None:
        made = await self._stored.count(IssuedRecord, index="data_key", prefix=(data_key,), limit=COUNTED_MAX)
        if made:
            raise InUse(
                f"data key {data_key}: {made} values that were made for leases are sealed under it, and are not sealed "
                "anew; wait until their leases are over (`issued list`), or revoke them"
            )
        page = await self._stored.select(VersionRecord, index="data_key", prefix=(data_key,), limit=NAMED_MAX)
        if not page.records:
            return
        total = await self._stored.count(VersionRecord, index="data_key", prefix=(data_key,), limit=COUNTED_MAX)
        count = f"at least {total}" if total == COUNTED_MAX else f"{total}"
        named = _named([f"{row.token} version {row.version}" for row in page.records], total)
        raise InUse(
            f"data key {data_key}: {count} versions are sealed under it: {named}; run `key rewrap --values`, which "
            "seals them anew, then destroy it"
        )

    def _check_not_configured(self, kms_key: str) -> None:
        where = [ring.name for ring in self._authority.keyrings if _names(ring, kms_key)]
        if any(is_same_key(uri, kms_key) for uri in self._vault.kms_keys(None)):
            where = ["[kms]", *where]
        if where or any(is_same_key(health.kms_key, kms_key) for health in self._vault.health()):
            raise InUse(
                f"KMS key {kms_key} is in the configuration: {_named(where, len(where)) or 'of this replica'}; take it "
                "out on every replica, let them read it again (SIGHUP), run `key rewrap`, then retire it"
            )

    def _wrapped_by(self, kms_key: str) -> list[DataKeyRecord]:
        return [record for record in self._authority.data_keys if _has_wrap_of(record.wraps, kms_key)]

    def _opens_without(self, record: DataKeyRecord, kms_key: str) -> bool:
        return self._live(record.wraps, kms_key, self._keys.kms_keys(record))

    def _live(self, wraps: Sequence[WrapRecord], leaving: str, kms_keys: Sequence[str]) -> bool:
        """Whether another of these KMS keys made one of the wraps, and opens what it wraps."""
        return any(
            wrap.kms_key != leaving and wrap.kms_key in kms_keys and self._vault.opens(wrap.kms_key) for wrap in wraps
        )

    def _entry(self, change: str, record: DataKeyRecord, actor: str, kms_key: str = "") -> KeyChanged:
        return KeyChanged(
            at=self._clock.now(),
            actor=actor,
            keyring=record.keyring,
            change=change,
            data_key=record.id,
            kms_key=kms_key,
        )


def _has_wrap_of(wraps: Sequence[WrapRecord], kms_key: str) -> bool:
    return any(wrap.kms_key == kms_key for wrap in wraps)


def _names(keyring: KeyringRecord, kms_key: str) -> bool:
    return any(is_same_key(uri, kms_key) for uri in keyring.kms_keys)


def _named(names: Sequence[str], total: int) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(names[:NAMED_MAX])
    return first if total <= NAMED_MAX else f"{first} and {total - NAMED_MAX} more"
