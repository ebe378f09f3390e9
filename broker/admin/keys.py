"""Keyrings and their data keys: add, replace the active key, forget what is cached.

Sealing is in `sealing`; what becomes of data keys later in `rewrapping`, `resealing` and `retiring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from broker.admin.errors import Exists, TooMany
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out
from broker.audit.entries import KeyChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BadRequest, Conflict, NotFound, Tampered
from broker.ids import random_id
from broker.policy.errors import excerpt
from broker.policy.names import parse_keyring_name
from broker.vault.vault import FLUSHED, Vault
from storage.records import DataKeyRecord, KeyringRecord, WrapRecord

DEFAULT_KEYRING: Final = "default"
"""The keyring of tokens that name none; `init` makes it."""
KEYRINGS_MAX: Final = 1000
KMS_KEYS_MAX: Final = 8
URI_CHARS_MAX: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotated:
    """A keyring after it got another active data key."""

    keyring: KeyringRecord
    data_key: DataKeyRecord


class KeyAdmin:
    """Keyrings and data keys as authority. A data key is opened by every KMS key before it is ever used."""

    def __init__(self, *, authority: Authority, vault: Vault, clock: Clock) -> None:
        self._authority = authority
        self._vault = vault
        self._clock = clock

    def keyring(self, name: str) -> KeyringRecord:
        """The keyring. NotFound: there is none of that name."""
        record = self._authority.keyrings.get((parse_keyring_name(name),))
        if record is None:
            raise NotFound(f"keyring {name}: there is no such keyring; add it first")
        return record

    def data_key(self, name: str) -> DataKeyRecord:
        """The data key. NotFound: there is none of that name."""
        record = self._authority.data_keys.get((name,))
        if record is None:
            raise NotFound(f"data key {excerpt(name)}: there is no such data key; `key list` shows those there are")
        return record

    def kms_keys(self, data_key: DataKeyRecord) -> tuple[str, ...]:
        """The KMS keys that shall wrap this data key now."""
        return self._vault.kms_keys(self.keyring(data_key.keyring))

    def active(self, keyring: KeyringRecord) -> DataKeyRecord:
        """The data key that seals for this keyring. Tampered: its row is missing."""
        record = self._authority.data_keys.get((keyring.active_data_key,))
        if record is None:
            raise Tampered(f"keyring {keyring.name}: its active data key is missing from the database")
        return record

    async def bootstrap(self) -> KeyringRecord:
        """The keyring `default`; made with the KMS keys of the configuration if there is none yet."""
        known = self._authority.keyrings.get((DEFAULT_KEYRING,))
        if known is not None:
            return known
        return await self.add_keyring(DEFAULT_KEYRING, kms_keys=(), authorize="broker", actor="system")

    async def add_keyring(
        self,
        name: str,
        *,
        kms_keys: Sequence[str],
        authorize: Literal["broker", "kms"],
        actor: str,
        once: Once = nothing_beside,
    ) -> KeyringRecord:
        """Add a keyring with a fresh data key. kms_keys: key URIs; none: those of the configuration.

        Exists; TooMany: 1000; BadRequest: a name, or over 8 KMS keys. NotFound: a KMS key is not configured.
        Unavailable, Tampered: a KMS key did not wrap the data key, or did not open it again.
        """
        parse_keyring_name(name)
        if len(kms_keys) > KMS_KEYS_MAX or any(not 1 <= len(uri) <= URI_CHARS_MAX for uri in kms_keys):
            raise BadRequest(f"kms_keys: at most {KMS_KEYS_MAX} URIs of at most {URI_CHARS_MAX} characters are allowed")
        self._check_new(name)
        now = self._clock.now()
        keyring = KeyringRecord(
            name=name, kms_keys=tuple(kms_keys), authorize=authorize, active_data_key=random_id(), created_at=now
        )
        data_key = await self._vault.generate_data_key(keyring, data_key=keyring.active_data_key, now=now)

        async def decide() -> Plan[KeyringRecord]:
            self._check_new(name)
            self.check_wraps(keyring, data_key.wraps)
            return Plan(
                result=keyring,
                entries=(
                    self._entry(name, "keyring_added", actor),
                    self._entry(name, "data_key_added", actor, data_key.id),
                ),
                inserts=(keyring, data_key),
                aside=await once(name),
            )

        return await carry_out(self._authority, decide)

    async def rotate(self, name: str, *, actor: str, from_data_key: str | None = None) -> Rotated:
        """Give the keyring a fresh active data key; the one before only opens from now on.

        from_data_key: rotate only if that one is still active. NotFound; Unavailable or Tampered from a KMS key.
        """
        now = self._clock.now()
        data_key = await self._vault.generate_data_key(self.keyring(name), data_key=random_id(), now=now)

        async def decide() -> Plan[Rotated]:
            keyring = self.keyring(name)
            before = self.active(keyring)
            if from_data_key not in (None, before.id):
                return Plan(result=Rotated(keyring=keyring, data_key=before), entries=())
            self.check_wraps(keyring, data_key.wraps)
            after = msgspec.structs.replace(keyring, rev=keyring.rev + 1, active_data_key=data_key.id)
            opening = msgspec.structs.replace(before, rev=before.rev + 1, state="open")
            return Plan(
                result=Rotated(keyring=after, data_key=data_key),
                entries=(self._entry(name, "rotated", actor, data_key.id),),
                inserts=(data_key,),
                updates=(after, opening),
            )

        return await carry_out(self._authority, decide)

    def check_wraps(self, keyring: KeyringRecord, wraps: Sequence[WrapRecord]) -> None:
        """Return if these are wraps by the KMS keys that the keyring has now, when they are about to be committed.

        Conflict: others are configured since they were made; what is committed then could be what nothing opens.
        """
        if {wrap.kms_key for wrap in wraps} != set(self._vault.kms_keys(keyring)):
            raise Conflict(f"keyring {keyring.name}: its KMS keys changed meanwhile; do it again")

    async def flush(self, *, actor: str) -> None:
        """Wipe every unwrapped data key, here at once and on other replicas as they read of it in the feed.

        The next use asks the KMS again. Recorded first.
        """
        await self._authority.commit((self._entry("", "flushed", actor),), announce=(FLUSHED,))
        self._vault.flush()

    def _check_new(self, name: str) -> None:
        if (name,) in self._authority.keyrings:
            raise Exists(f"keyring {name} exists already; choose another name")
        if len(self._authority.keyrings) >= KEYRINGS_MAX:
            raise TooMany(f"keyrings: there are {KEYRINGS_MAX}, which is the most")

    def _entry(self, keyring: str, change: str, actor: str, data_key: str = "") -> KeyChanged:
        return KeyChanged(at=self._clock.now(), actor=actor, keyring=keyring, change=change, data_key=data_key)
