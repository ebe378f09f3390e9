"""What happens in the demo, chapter by chapter, each with its judgement. Their order, and what runs beside, is `story`.

Every change goes through the admin API that the commands use; the command that does the same is shown before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from broker.api.views.grants import AddGrant, Grant
from broker.api.views.leases import Lease, Revocation, RevokeLeases
from broker.api.views.rollouts import Rollout, StartRollout
from broker.api.views.tokens import PutVersion, TokenVersion
from broker.api.views.workers import RegisterWorker, Worker
from broker.audit.report import Report
from broker.audit.verify import verify_export
from broker.cli.arriving import receive_folder
from broker.cli.client import AdminClient
from broker.demo.cast import Actor
from broker.demo.narrator import Narrator
from broker.demo.upstream import KEY_PREFIX, Upstream
from broker.demo.verdict import Verdict
from tokenbroker_client import WorkerKey

TOKEN: Final = "payments/api-key"  # noqa: S105 - a token's name
TEAM: Final = ("shop-1", "shop-2")
CONTRACTOR: Final = "contractor-1"
CANARY: Final = 4000
"""Parts of 10 000: of these workers, one gets a fourth version first."""
REVOKED_WITHIN_S: Final = 1.0
_VERSIONS: Final = f"/v1/tokens/{TOKEN}/-/versions"
_ROLLOUT: Final = f"/v1/tokens/{TOKEN}/-/rollout"
_ACKNOWLEDGED_S: Final = 5.0
_ROLLED_BACK_S: Final = 20.0
_POLL_S: Final = 0.02


class Chapters:
    """The parts of the story, and what they share. keys: every value that was ever sealed."""

    def __init__(
        self,
        *,
        narrator: Narrator,
        client: AdminClient,
        upstream: Upstream,
        actors: Mapping[str, Actor],
        monotonic: Callable[[], float],
    ) -> None:
        self.verdict = Verdict()
        self.keys: list[str] = []
        self._narrator = narrator
        self._client = client
        self._upstream = upstream
        self._actors = actors
        self._monotonic = monotonic
        self._acknowledged: list[str] = []
        self._unacknowledged: list[str] = []

    async def seal(self) -> int:
        """Let the API issue another key, and seal it as the token's next version; its number."""
        key = KEY_PREFIX + secrets.token_hex(16)
        self.keys.append(key)
        self._upstream.issue(key)
        self._narrator.command(f"token put {TOKEN} --file new-key")
        return (await self._client.create(_VERSIONS, TokenVersion, PutVersion(value=key))).version

    async def admit(self, folder: Path) -> None:
        """Register the workers, each with a key of its own, and grant them the token."""
        for name in self._actors:
            key = WorkerKey.generate(worker=name)
            await asyncio.to_thread(key.save, folder / f"{name}.key")
            groups = ("shop",) if name in TEAM else ()
            self._narrator.command(
                f"worker register {name} --public-key {name}.pub{''.join(f' --group {group}' for group in groups)}"
            )
            body = RegisterWorker(worker=name, public_key=key.public_key_b64, groups=groups)
            await self._client.create("/v1/workers", Worker, body)
        for subject in ("group:shop", f"worker:{CONTRACTOR}"):
            self._narrator.command(f"grant add {subject} 'payments/*' --ttl 60s")
            await self._client.create("/v1/grants", Grant, AddGrant(subject=subject, pattern="payments/*", ttl_s=60))

    async def begin(self) -> None:
        """Wait until every worker works."""
        for actor in self._actors.values():
            await actor.until(lambda actor=actor: actor.state != "starting", 20.0)  # type: ignore[misc]  # bound now
            self._narrator.tell(f"{actor.name} is {actor.state}")

    async def rotate(self) -> None:
        """Rotate the token while everybody works, and see the acknowledgements come in."""
        version = await self.seal()
        since = self._monotonic()
        missing = {name for name, actor in self._actors.items() if actor.state == "working"}
        while missing and self._monotonic() - since < _ACKNOWLEDGED_S:
            for lease in await self._client.every("/v1/leases", Lease, {"token": TOKEN}):
                if lease.acked_version == version and lease.worker in missing:
                    missing.discard(lease.worker)
                    after_s = self._monotonic() - since
                    self._narrator.tell(
                        f"{lease.worker} has acknowledged version {version}, {after_s:.2f} s after it was stored"
                    )
            await asyncio.sleep(_POLL_S)
        self._acknowledged.append(f"version {version} in {self._monotonic() - since:.2f} s")
        self._unacknowledged += [f"{name} version {version}" for name in sorted(missing)]

    async def roll_out(self) -> None:
        """Roll out a key that nobody can use, and see it taken back before more than one worker had it."""
        self.keys.append(f"sk-other-{secrets.token_hex(16)}")
        self._narrator.command(f"token put {TOKEN} --file other-key --stage pending")
        body = PutVersion(value=self.keys[-1], stage="pending")
        version = (await self._client.create(_VERSIONS, TokenVersion, body)).version
        self._narrator.command(f"token rollout {TOKEN} --version {version} --canary {CANARY // 100}% --then 100%")
        since = self._monotonic()
        rollout = await self._client.create(_ROLLOUT, Rollout, StartRollout(version=version, shares=(CANARY, 10_000)))
        while rollout.ended_at is None and self._monotonic() - since < _ROLLED_BACK_S:
            await asyncio.sleep(_POLL_S)
            rollout = await self._client.get(_ROLLOUT, Rollout)
        for each in rollout.failed:
            self._narrator.tell(f"{each.worker}: {each.why}")
        had = [actor for actor in self._actors.values() if version in actor.had]
        back = [
            await actor.until(lambda actor=actor: actor.version < version, _ACKNOWLEDGED_S)  # type: ignore[misc]  # bound now
            for actor in had
        ]
        after_s = self._monotonic() - since
        self.verdict.judge(
            "a key that does not work takes itself back",
            held=rollout.state == "rolled_back" and back == [True],
            seen=f"{', '.join(actor.name for actor in had) or 'nobody'} had it for {after_s:.2f} s at most",
        )

    async def revoke(self) -> None:
        """Take the token from one worker, and see that it stops, stays out, and harms nobody else."""
        actor = self._actors[CONTRACTOR]
        self._narrator.command(f'lease revoke --worker {CONTRACTOR} --reason "left the project" --wait 5s')
        self._narrator.command(f"worker disable {CONTRACTOR}")
        since = self._monotonic()
        body = RevokeLeases(worker=CONTRACTOR, reason="left the project", wait_s=5.0)
        done = await self._client.post("/v1/leases/revoke", Revocation, body, wait_s=5.0)
        await self._client.post(f"/v1/workers/{CONTRACTOR}/disable", Worker)
        wiped = ", ".join(each.worker for each in done.wiped) or "nobody"
        self._narrator.tell(f"wiped and said so: {wiped}")
        await actor.until(lambda: actor.state != "working", 5.0)
        await actor.ask_again()
        await actor.until(lambda: actor.again is not None, 15.0)
        before = {name: self._upstream.accepted[name] for name in TEAM}
        await asyncio.sleep(REVOKED_WITHIN_S)
        self._judge_revocation(actor, since, len(done.wiped))
        going = [name for name in TEAM if self._upstream.accepted[name] > before[name]]
        self.verdict.judge(
            "the other workers went on",
            held=len(going) == len(TEAM),
            seen=f"{', '.join(going) or 'nobody'} kept calling",
        )

    def _judge_revocation(self, actor: Actor, since: float, wiped: int) -> None:
        last_s = self._upstream.called_at.get(CONTRACTOR, since) - since
        self.verdict.judge(
            "the revoked worker stopped within a second",
            held=actor.state == "stopped" and last_s <= REVOKED_WITHIN_S and wiped == 1,
            seen=f"its last call came {max(0.0, last_s):.2f} s after; its lease is {'wiped' if wiped else 'not wiped'}",
        )
        again = actor.again
        self.verdict.judge(
            "it could not come back",
            held=again is not None and not again.leased,
            seen="it was refused" if again is not None and not again.leased else "it was not refused",
        )

    async def account(self) -> None:
        """List who had what, and judge the calls."""
        self._narrator.command(f"lease list --token {TOKEN} --all")
        leases = await self._client.every("/v1/leases", Lease, {"token": TOKEN, "all": "true"})
        rows = [
            (
                each.worker,
                each.version,
                each.state,
                f"{each.granted_at:%T}",
                f"{each.ended_at:%T}" if each.ended_at else "-",
            )
            for each in sorted(leases, key=lambda lease: lease.worker)
        ]
        self._narrator.table(("worker", "last version", "state", "granted at", "ended at"), rows)
        refused, accepted = self._upstream.refused.total(), self._upstream.accepted.total()
        self.verdict.judge(
            "no call was refused that should not have been",
            held=refused == 0 and all(self._upstream.accepted[name] for name in self._actors),
            seen=f"{accepted} calls, {refused} refused",
        )
        self.verdict.judge(
            "every worker acknowledged every rotation",
            held=len(self._acknowledged) == 2 and not self._unacknowledged,
            seen=", ".join(self._unacknowledged) or ", ".join(self._acknowledged),
        )
        states = {lease.worker: (lease.state, lease.version) for lease in leases}
        expected = {**dict.fromkeys(TEAM, ("live", 3)), CONTRACTOR: ("revoked", 3)}
        self.verdict.judge(
            "the broker knows who had what", held=states == expected, seen=f"{len(leases)} leases on record"
        )

    async def audit(self, folder: Path, vkey: str) -> None:
        """Take the audit log away and verify it without the broker."""
        self._narrator.command("audit export --out audit")
        async with self._client.download("GET", "/v1/audit/export") as chunks:
            await receive_folder(chunks, folder / "audit")
        self._narrator.command("audit verify audit --key audit.vkey")
        report: Report = await asyncio.to_thread(verify_export, folder / "audit", vkey)
        seen = f"{report.entries} entries under {report.checkpoints} signed checkpoints"
        self._narrator.tell(seen)
        self.verdict.judge("the audit log verifies offline", held=report.ok, seen="; ".join(report.problems) or seen)

    async def search(self, folders: Sequence[Path]) -> None:
        """Look for every value in every file that the broker wrote."""
        needles = [key.encode() for key in self.keys]
        found = [
            str(path.name)
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file() and any(needle in path.read_bytes() for needle in needles)
        ]
        self.verdict.judge(
            "no file of the broker holds a key in clear",
            held=not found,
            seen=", ".join(found) or f"{len(self.keys)} keys were looked for",
        )
