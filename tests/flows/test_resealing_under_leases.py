"""Values that are sealed anew under running leases: no holder notices, and no replica keeps what was sealed before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from broker.audit.entries import LeaseRotated
from broker.authority.authority import load_authority
from broker.feed import Feed
from broker.leases.context import Context
from broker.leases.duties import Duties
from broker.leases.heads import Heads
from broker.leases.held import Holdings
from broker.leases.pools.book import Pools
from broker.leases.settings import LeaseSettings
from broker.leases.wheel import Wheel
from broker.policy.book import GrantBook
from broker.reactions import Reactions
from broker.vault.assembly import open_vault
from broker.vault.settings import VaultSettings
from broker.vault.vault import Vault
from storage.records import VersionRecord

ROOT = "admin:root"


class Replica(NamedTuple):
    """What another replica keeps in memory."""

    vault: Vault
    heads: Heads


@asynccontextmanager
async def replica_of(house: Any) -> AsyncIterator[Replica]:
    """Another replica's memory on the house's database, kept in line by a feed of its own."""
    broker = house.broker
    authority = await load_authority(
        storage=house.storage,
        writer=broker.journal,
        derive=broker.root.derive,
        cluster_id=broker.root.cluster_id,
        clock=broker.clock,
    )
    async with open_vault(
        cluster_id=broker.root.cluster_id,
        kms=broker.kms,
        default_kms_keys=lambda: house.settings.kms.keys,
        data_key=lambda name: authority.data_keys.get((name,)),
        keyring=lambda name: authority.keyrings.get((name,)),
        settings=VaultSettings(),
        clock=broker.clock,
        jitter=lambda: 0.5,
        alarm=lambda failure: None,
    ) as vault:
        context = Context(
            instance="two",
            workers=authority.workers,
            keyrings=authority.keyrings,
            storage=house.storage,
            heads=Heads(storage=house.storage, verify=authority.verify, bound=100),
            pools=Pools(book=authority.pools, storage=house.storage),
            vault=vault,
            holdings=Holdings(),
            wheel=Wheel(tick_s=1.0, start=broker.clock.monotonic()),
            settings=LeaseSettings(),
            uses=broker.uses,
            issuing=broker.issuing,
        )
        reactions = Reactions(
            authority=authority,
            grants=GrantBook(grants=authority.grants),
            context=context,
            duties=Duties(context=context, desk=broker.desk, clock=broker.clock, upkeep=broker.claim.ask),
            sessions=broker.sessions,
            rollouts_changed=lambda tokens: None,
        )
        feed = Feed(storage=house.storage, clock=broker.clock, start=authority.position, stale_s=3.0)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(feed.run(reactions.apply, reactions.reload))
            try:
                yield Replica(vault=vault, heads=context.heads)
            finally:
                following.cancel()


async def reseal(house: Any) -> Any:
    return await house.services.resealer.reseal("default", after=None, limit=500, rate_per_s=10_000, actor=ROOT)


async def test_who_holds_a_lease_notices_nothing(house: Any, welcomed: Any) -> None:
    """No push, no version, no revision of the lease; what the worker acknowledged stays; later leases are served."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await house.put("github/ci", b"two")
        await worker.push()
        await worker.send(type="ack", lease=lease, version=2, status="applied")

        async def acknowledged() -> bool:
            return (await house.row(lease)).acked_version == 2

        await house.until(acknowledged)
        before = await house.row(lease)
        old = house.services.keys.keyring("default").active_data_key
        await house.services.keys.rotate("default", actor=ROOT)
        assert (await reseal(house)).values == 2
        await house.services.retirer.destroy(old, actor=ROOT)
        await house.settled()
        await house.broker.desk.drained()
        assert worker.pushes == []
        assert await house.row(lease) == before
        assert len(await house.entries(LeaseRotated)) == 1
        again = await worker.lease("github/ci")
        assert (again["version"], again["value"]) == (2, "two")
    assert (await house.verified()).problems == []


async def test_every_replica_forgets_what_was_sealed_before(house: Any) -> None:
    """A sealed row in another replica's memory leaves it with the feed, so nothing is opened with a key that went."""
    async with replica_of(house) as replica:
        await replica.heads.load(["github/ci"])
        assert "github/ci" in replica.heads.known
        await house.services.keys.rotate("default", actor=ROOT)
        await reseal(house)
        await house.until(lambda: "github/ci" not in replica.heads.known)


async def test_a_flush_reaches_every_replica(house: Any) -> None:
    """A data key in another replica's memory is wiped as soon as it reads of the flush; the next use asks the KMS."""
    row = await house.storage.get(VersionRecord, ("github/ci", 1))
    async with replica_of(house) as replica:
        (await replica.vault.open(row)).wipe()
        assert replica.vault.cached_keys() == 1
        await house.services.keys.flush(actor=ROOT)
        await house.until(lambda: replica.vault.cached_keys() == 0)
        assert (await replica.vault.open(row)).reveal() == b"s3cret"
