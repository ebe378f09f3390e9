"""Put together, once for a broker, what acts on tokens: its loops and its API use the same parts."""

from __future__ import annotations

from dataclasses import dataclass

from broker.admin.keys import KeyAdmin
from broker.admin.put import TokenPutter
from broker.admin.sealing import Sealer
from broker.admin.signing_in import SigningIn
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.admin.tokens import TokenAdmin
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.vault.vault import Vault
from storage.port import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenServices:
    """Reading tokens, putting values, changing stages, sealing, and opening what the broker signs in with."""

    stored: Stored
    book: TokenBook
    keys: KeyAdmin
    sealer: Sealer
    putter: TokenPutter
    admin: TokenAdmin
    signing_in: SigningIn


def make_token_services(*, storage: Storage, authority: Authority, vault: Vault, clock: Clock) -> TokenServices:
    """Build them from what they share."""
    stored = Stored(storage=storage)
    book = TokenBook(stored=stored, authority=authority)
    keys = KeyAdmin(authority=authority, vault=vault, clock=clock)
    sealer = Sealer(authority=authority, vault=vault, keys=keys, clock=clock)
    return TokenServices(
        stored=stored,
        book=book,
        keys=keys,
        sealer=sealer,
        putter=TokenPutter(authority=authority, book=book, sealer=sealer, clock=clock),
        admin=TokenAdmin(authority=authority, book=book, vault=vault, clock=clock),
        signing_in=SigningIn(authority=authority, book=book, vault=vault),
    )
