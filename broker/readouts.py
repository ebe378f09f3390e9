"""The numbers that each part of a running broker keeps, as Prometheus reads them.

What they mean is in `docs/reference/metrics.md`; requests of the API are counted where they are answered.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector

from broker.api.metrics import Labelled, Labels, Readings, Readout, Spread, Spreads
from broker.leases.granting import Grant
from broker.leases.issued.unmaking import LOST
from broker.policy.health import Health
from broker.vault.breaker import BreakerState
from broker.vault.counters import CALL_BOUNDS_S
from broker.vault.failures import FailureKind
from storage.records.rotation import RolloutState
from tokenbroker_client.wire import ReportEvent

if TYPE_CHECKING:
    from broker.app import Broker

_RESULTS: Final = ("ok", *(kind.value for kind in FailureKind))
_ENDED: Final[tuple[RolloutState, ...]] = ("done", "rolled_back")
_BREAKER: Final = {BreakerState.CLOSED: 0, BreakerState.PROBING: 1, BreakerState.OPEN: 2}


def make_registry(broker: Broker) -> CollectorRegistry:
    """What `/metrics` shows of this broker."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for part, read, gauges in (
        ("leases", lambda: _leases(broker), {"held", "sessions", "heads"}),
        ("pools", lambda: _pools(broker), {"leases", "waiting", "members"}),
        ("issued", lambda: _issued(broker), {"waiting", "oldest_s"}),
        ("vault", lambda: _vault(broker), {"waiters", "in_flight", "cached_keys", "oldest_key_s"}),
        ("kms", lambda: _kms(broker), {"breaker", "answered_s"}),
        ("audit", lambda: _audit(broker), {"unsigned"}),
        ("feed", lambda: _feed(broker), {"position", "silent_s", "trouble"}),
        ("replicas", lambda: _replicas(broker), {"alive", "upkeep", "clock_ahead_s"}),
        ("rollouts", lambda: _rollouts(broker), {"running", "holders"}),
        ("rotations", lambda: _rotations(broker), {"running", "stuck"}),
    ):
        registry.register(Readout(part=part, read=read, gauges=frozenset(gauges)))
    return registry


def _leases(broker: Broker) -> Readings:
    counts = broker.desk.counts
    return {
        "held": len(broker.context.holdings),
        "sessions": len(broker.sessions),
        "heads": len(broker.context.heads.known),
        "granted": counts.done.get(Grant, 0),
        "operations": sum(counts.done.values()),
        "done": {kind.__name__.lower(): number for kind, number in counts.done.items()},
        "batches": counts.batches,
        "failed": dict(counts.failed),
        "reports": {event.value: broker.context.reports[event] for event in ReportEvent},
    }


def _pools(broker: Broker) -> Readings:
    context, now = broker.context, broker.clock.now()
    waiting = broker.desk.lines.waiting()
    leases: dict[Labels, float] = {}
    members: dict[Labels, float] = {}
    for pool in broker.authority.pools:
        leases[pool.token,] = context.holdings.loads(pool.members).total()
        states = Counter(context.pools.health(pool.token, member, context.heads, now) for member in pool.members)
        members.update({(pool.token, state.value): states[state] for state in Health})
    return {
        "leases": Labelled(labels=("pool",), rows=leases),
        "waiting": Labelled(labels=("pool",), rows={(pool,): waiting.get(pool, 0) for (pool,) in leases}),
        "members": Labelled(labels=("pool", "health"), rows=members),
    }


def _issued(broker: Broker) -> Readings:
    making, unmaking = broker.issuing.counts, broker.unmaking.counts
    steps = (("make", making.failed), ("end", unmaking.failed))
    return {
        "made": making.made,
        "refused": making.refused,
        "failed": Labelled(
            labels=("step", "kind"),
            rows={
                **{(step, code): count for step, failed in steps for code, count in failed.items()},
                ("make", LOST): unmaking.lost,
            },
        ),
        "ended": unmaking.ended,
        "waiting": unmaking.waiting,
        "oldest_s": unmaking.oldest_s,
    }


def _rollouts(broker: Broker) -> Readings:
    told = broker.tallies.told
    return {
        "running": broker.tallies.running,
        "holders": {
            "confirmed": sum(tally.confirmed for tally in told),
            "failed": sum(tally.failed_count for tally in told),
            "silent": sum(tally.silent_count for tally in told),
            "lost": sum(tally.lost_count for tally in told),
            "waiting": sum(tally.waiting for tally in told),
        },
        "ended": {state: broker.rollouts.ended[state] for state in _ENDED},
    }


def _vault(broker: Broker) -> Readings:
    counters = broker.vault.counters
    # Results that did not happen yet are there as 0: an alarm on an increase would miss the first of a new series.
    unwraps: dict[Labels, float] = {
        (result, health.kms_key): counters.unwraps.get((result, health.kms_key), 0)
        for health in broker.vault.health()
        for result in _RESULTS
    }
    return {
        "hits": counters.hits,
        "misses": counters.misses,
        "refreshes": counters.refreshes,
        "waiters": counters.waiters,
        "in_flight": counters.in_flight,
        "cached_keys": broker.vault.cached_keys(),
        "oldest_key_s": broker.vault.oldest_key_s(),
        "stale_served": Labelled(
            labels=("age",), rows={(age,): number for age, number in counters.stale_served.items()}
        ),
        "unwraps": Labelled(labels=("kind", "kms_key"), rows=unwraps),
        "evictions": counters.evictions,
    }


def _kms(broker: Broker) -> Readings:
    known = broker.vault.health()
    return {
        "breaker": Labelled(labels=("kms_key",), rows={(each.kms_key,): _BREAKER[each.state] for each in known}),
        "answered_s": Labelled(
            labels=("kms_key",),
            rows={(each.kms_key,): each.answered_s_ago for each in known if each.answered_s_ago is not None},
        ),
        "call_seconds": Spreads(
            labels=("kms_key", "operation"),
            bounds=CALL_BOUNDS_S,
            rows={
                (each.kms_key, operation): Spread(counts=times.counts, sum=times.sum_s)
                for each in known
                for operation, times in each.times.items()
            },
        ),
    }


def _audit(broker: Broker) -> Readings:
    counters = broker.journal.counters
    counted: dict[str, float] = {field.name: getattr(counters, field.name) for field in fields(counters)}
    return {**counted, "unsigned": broker.journal.unsigned}


def _feed(broker: Broker) -> Readings:
    feed = broker.feed
    return {"position": feed.position, "silent_s": feed.silent_s, "trouble": int(bool(feed.trouble))}


def _replicas(broker: Broker) -> Readings:
    roll = broker.roll
    return {
        "alive": roll.alive,
        "upkeep": int(broker.claim.held),
        "clock_ahead_s": roll.skew.seconds,
        "lapses": roll.lapses,
    }


def _rotations(broker: Broker) -> Readings:
    conductor = broker.conductor
    return {"running": conductor.running, "stuck": conductor.stuck, "attempts": dict(conductor.counts)}
