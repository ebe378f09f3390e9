"""Show a value to an operator: recorded before it is shown, and only where settings allow it at all."""

from __future__ import annotations

from dataclasses import dataclass

from broker.admin.errors import RevealByKms, RevealOff
from broker.admin.kinds import check_versioned
from broker.admin.token_book import TokenBook
from broker.audit.entries import TokenRevealed
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import Gone, NotFound
from broker.secret import Secret
from broker.vault.vault import Vault


@dataclass(frozen=True, kw_only=True, slots=True)
class Revealed:
    """A value on its way to an operator; whoever takes it wipes it."""

    token: str
    version: int
    content_type: str
    value: Secret


class Revealer:
    """Opens values for operators. allowed: the setting that may switch this off for the whole broker."""

    def __init__(self, *, authority: Authority, book: TokenBook, vault: Vault, clock: Clock, allowed: bool) -> None:
        self._authority = authority
        self._book = book
        self._vault = vault
        self._clock = clock
        self._allowed = allowed

    async def reveal(self, name: str, *, version: int | None, actor: str) -> Revealed:
        """The value of a version (None: the current one), once `TokenRevealed` is durable; never before.

        RevealOff: switched off. RevealByKms: the KMS decides per worker. NotFound: no such token or version, or none is
        current. WrongKind: it has no versions. Gone: destroyed.
        Unavailable: it could not be recorded or opened in time; nothing was shown.
        """
        if not self._allowed:
            raise RevealOff
        token = await self._book.token(name)
        ring = self._authority.keyrings.get((token.keyring,))
        if ring is not None and ring.authorize == "kms":
            raise RevealByKms(
                f"token {name} is of keyring {ring.name}, whose KMS decides for each worker, and an operator is none; "
                "lease it as a worker that the KMS allows"
            )
        check_versioned(self._authority, token)
        number = token.current if version is None else version
        if not number:
            raise NotFound(f"token {name} has no current version; name one of `token versions`")
        record = await self._book.version(name, number)
        if record.stage == "destroyed":
            raise Gone(f"version {number} of {name} is destroyed; its value is gone")
        value = await self._vault.open(record)
        try:
            entry = TokenRevealed(at=self._clock.now(), actor=actor, token=name, version=number)
            await self._authority.commit((entry,))
        except BaseException:
            value.wipe()
            raise
        return Revealed(token=name, version=number, content_type=record.content_type, value=value)
