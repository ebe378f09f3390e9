"""Open the tokens that hold what the broker itself signs in with upstream, for one call of a rotator or an issuer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from broker.admin.errors import CredentialRefused
from broker.admin.token_book import TokenBook
from broker.authority.authority import Authority
from broker.secret import Secret
from broker.vault.vault import Vault
from storage.records import TokenRecord, VersionRecord

CREDENTIALS_MAX: Final = 16
"""Most credentials of one policy."""


class SigningIn:
    """Credentials by the names that a policy gives them: NAME=TOKEN. Their values are the tokens' current versions."""

    def __init__(self, *, authority: Authority, book: TokenBook, vault: Vault) -> None:
        self._authority = authority
        self._book = book
        self._vault = vault

    async def check(self, names: Mapping[str, str], *, of: str) -> None:
        """Look at the credentials of a policy of the token `of` before it is stored.

        CredentialRefused: too many, one that is the token itself, that stores no value, or that no KMS opens for the
        broker. NotFound: there is no such token.
        """
        if len(names) > CREDENTIALS_MAX:
            raise CredentialRefused(f"token {of}: a policy has at most {CREDENTIALS_MAX} credentials, not {len(names)}")
        for name, token in names.items():
            if token == of:
                raise CredentialRefused(f"credential {name[:64]}: {of} cannot hold what it is itself made with")
            await self._current(name, await self._book.token(token))

    @asynccontextmanager
    async def opened(self, names: Mapping[str, str]) -> AsyncIterator[Mapping[str, Secret]]:
        """The values, which are wiped behind the block. Raises as `check`, and what `Vault.open` raises."""
        held: dict[str, Secret] = {}
        try:
            for name, token in names.items():
                version = await self._current(name, await self._book.token(token))
                held[name] = await self._vault.open(version)
            yield held
        finally:
            for secret in held.values():
                secret.wipe()

    async def _current(self, name: str, token: TokenRecord) -> VersionRecord:
        if token.kind != "stored":
            raise CredentialRefused(
                f"credential {name[:64]}: token {token.name} has no value of its own; name one that has"
            )
        if token.disabled or not token.current:
            raise CredentialRefused(
                f"credential {name[:64]}: token {token.name} is disabled or has no current version; put its value"
            )
        ring = self._authority.keyrings.get((token.keyring,))
        if ring is not None and ring.authorize == "kms":
            raise CredentialRefused(
                f"credential {name[:64]}: token {token.name} is of keyring {ring.name}, whose KMS decides for each "
                "worker, and the broker is none; put it into another keyring"
            )
        return await self._book.version(token.name, token.current)
