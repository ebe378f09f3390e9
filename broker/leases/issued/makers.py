"""Issuers at work: opened with their credentials for one call, and whatever goes wrong in them told in our words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from broker.admin.signing_in import SigningIn
from broker.errors import BrokerError
from broker.secret import Secret
from broker.upstream.catalog import open_issuer
from broker.upstream.errors import Failed
from broker.upstream.port import Issuer, Site, Wanted
from storage.records import IssuerRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Maker:
    """An open issuer, and how a token's values are made by it."""

    issuer: Issuer
    policy: IssuerRecord
    credentials: Mapping[str, Secret]

    def wanted(self, *, lease: str, worker: str, groups: tuple[str, ...] = (), ttl_s: float = 0.0) -> Wanted:
        """The value of one lease, as the issuer is asked for it."""
        return Wanted(
            token=self.policy.token,
            settings=self.policy.settings,
            credentials=self.credentials,
            lease=lease,
            worker=worker,
            groups=groups,
            ttl_s=ttl_s,
        )


class Makers:
    """Opens them."""

    def __init__(self, *, signing_in: SigningIn, site: Site) -> None:
        self._signing_in = signing_in
        self._site = site

    @asynccontextmanager
    async def at_work(self, policy: IssuerRecord) -> AsyncIterator[Maker]:
        """The issuer of a token. The caller sets the deadline.

        UpstreamError: what the issuer raises; Failed also for what it must not raise. Other BrokerErrors: a credential
        cannot be had (`SigningIn.opened`), or what the block raises.
        """
        async with self._signing_in.opened(policy.credentials) as credentials:
            try:
                async with open_issuer(policy.issuer, self._site) as issuer:
                    yield Maker(issuer=issuer, policy=policy, credentials=credentials)
            except (BrokerError, TimeoutError):
                raise
            except Exception as error:  # noqa: BLE001 - it is another party's code, and told as its failure
                # Its text may hold anything, and a traceback would show what it was working with.
                raise Failed(f"the issuer {policy.issuer} broke ({type(error).__name__}); it is to be mended") from None
