"""Prove that a filled database is the cluster that the configuration pins: MACs, signatures, values that open.

What is opened stays in memory and is wiped at once. Comparing with the source is `filling`'s.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from broker.app import AUDIT_SIGNING
from broker.audit.checkpoint import key_name
from broker.audit.lookback import look_back
from broker.audit.note import Signer, Verifier
from broker.audit.verify import verify_live
from broker.authority.authority import Authority, find_forged, load_authority
from broker.authority.pins import check_pins
from broker.clock import Clock
from broker.doctor.reading import NoWriter
from broker.errors import BrokerError, Tampered
from broker.foundations import open_cluster, open_keys, vault_settings
from broker.kms_keys import KmsKeys
from broker.moving.filling import Progress
from broker.moving.samples import Samples
from broker.settings import Settings
from broker.vault.assembly import open_vault
from broker.vault.root import Root
from storage.port import Storage
from storage.records import VersionRecord


@dataclass(kw_only=True, slots=True)
class Proof:
    """What was looked at.

    opened, passed_over: sampled versions; those are passed over whose KMS decides for each worker. notes: what is wrong
    with the audit log of the source already, and so is no fault of the copy.
    """

    audit_entries: int = 0
    opened: int = 0
    passed_over: int = 0
    notes: tuple[str, ...] = ()


class Prover:
    """Proves with the KMS keys and the root key of one cluster. Made by `open_prover`."""

    def __init__(
        self, *, source: Storage, settings: Settings, keys: KmsKeys, root: Root, clock: Clock, progress: Progress
    ) -> None:
        self._source = source
        self._settings = settings
        self._keys = keys
        self._root = root
        self._clock = clock
        self._progress = progress
        self.proof = Proof()

    async def prove(self, storage: Storage, samples: Samples) -> list[str]:
        """Everything that is wrong with the database; empty: nothing. StartRefused: another cluster's, or no KMS."""
        await open_cluster(storage, self._keys, self._settings)
        self._progress.begin("checking MACs", total=None)
        verifier = Verifier(self._vkey())
        found = await look_back(storage, verifier=verifier)
        try:
            authority = await load_authority(
                storage=storage,
                writer=NoWriter(),
                derive=self._root.derive,
                cluster_id=self._root.cluster_id,
                clock=self._clock,
            )
            problems = [problem.message for problem in await authority.check()]
        except Tampered as error:
            forged = await find_forged(
                storage=storage, derive=self._root.derive, cluster_id=self._root.cluster_id, clock=self._clock
            )
            return [error.message, *(problem.message for problem in forged)]
        problems += check_pins(found, authority.manifests).sentences
        self._progress.begin("verifying the audit log", total=None)
        report = await verify_live(storage, vkey=self._vkey())
        self.proof.audit_entries = report.entries
        if not report.ok:
            known = set((await verify_live(self._source, vkey=self._vkey())).problems)
            problems += [problem for problem in report.problems if problem not in known]
            self.proof.notes = tuple(problem for problem in report.problems if problem in known)
        return problems + await self._open(storage, authority, list(samples))

    async def _open(self, storage: Storage, authority: Authority, chosen: list[tuple[str | int, ...]]) -> list[str]:
        problems: list[str] = []
        self._progress.begin("opening values", total=len(chosen))
        async with open_vault(
            cluster_id=self._root.cluster_id,
            kms=self._keys,
            default_kms_keys=lambda: self._keys.defaults,
            data_key=lambda name: authority.data_keys.get((name,)),
            keyring=lambda name: authority.keyrings.get((name,)),
            settings=vault_settings(self._settings),
            clock=self._clock,
            jitter=lambda: secrets.randbelow(2**32) / 2**32,
            alarm=lambda _failure: None,  # one of several KMS keys may refuse; what none of them opens is told below
        ) as vault:
            for key in chosen:
                record = await storage.get(VersionRecord, key)
                assert record is not None, "nobody else writes to this database"
                ring = authority.keyrings.get((record.keyring,))
                self._progress.advance(1)
                if ring is not None and ring.authorize == "kms":
                    self.proof.passed_over += 1
                    continue
                try:
                    (await vault.open(record)).wipe()
                except BrokerError as error:
                    problems.append(f"token {record.token} version {record.version} does not open: {error.message}")
                else:
                    self.proof.opened += 1
        return problems

    def _vkey(self) -> str:
        return Signer(name=key_name(self._root.cluster_id), seed=self._root.derive(AUDIT_SIGNING)).vkey


@asynccontextmanager
async def open_prover(
    source: Storage, settings: Settings, *, clock: Clock, progress: Progress
) -> AsyncIterator[Prover]:
    """A prover for the cluster of `source`. StartRefused: not the one that is pinned, or no KMS key opens its root."""
    async with open_keys(settings) as keys:
        root = await open_cluster(source, keys, settings)
        yield Prover(source=source, settings=settings, keys=keys, root=root, clock=clock, progress=progress)
