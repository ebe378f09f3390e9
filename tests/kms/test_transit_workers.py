"""Keyrings that authorise at the KMS: each worker is unwrapped for with a token of its own, by its own policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from kms.errors import Denied
from kms.port import Caller, Kms, Wrap
from kms.transit import open_transit

CONTEXT = {"keyring": "payments"}
KEY = bytes(range(32))


@pytest.fixture
def caller(transit_key: Any) -> Iterator[Caller]:
    """A worker whose policy allows the key, with a group that has no policy; names are this test's own."""
    name = f"w-{token_hex(4)}"
    allow(transit_key, f"tokenbroker-worker-{name}")
    yield Caller(worker=name, groups=(f"g-{token_hex(4)}",))
    transit_key.bao.drop_policy(f"tokenbroker-worker-{name}")


@pytest.fixture
def uri(transit_key: Any) -> str:
    """The key with a token role, logged in by AppRole."""
    transit_key.bao.token_role(transit_key.mount)
    found: str = transit_key.approle_uri() + f"&worker_role={transit_key.mount}"
    return found


@pytest.fixture
async def kms(uri: str) -> AsyncIterator[Kms]:
    """The key, open."""
    async with open_transit(uri) as opened:
        yield opened


@pytest.fixture
async def wrap(kms: Kms) -> Wrap:
    """A wrap of KEY."""
    return await kms.wrap(KEY, CONTEXT)


def allow(transit_key: Any, policy: str) -> None:
    """Let a policy decrypt with the key."""
    transit_key.bao.policy(policy, {f"{transit_key.mount}/decrypt/{transit_key.key}": ["update"]})


async def test_a_group_can_allow(transit_key: Any, kms: Kms, wrap: Wrap) -> None:
    """A worker without a policy of its own gets what its group's policy allows."""
    group = f"g-{token_hex(4)}"
    allow(transit_key, f"tokenbroker-group-{group}")
    assert await kms.unwrap(wrap, CONTEXT, Caller(worker="somebody", groups=("others", group))) == KEY


async def test_a_name_of_the_other_kind_allows_nothing(kms: Kms, wrap: Wrap, caller: Caller) -> None:
    """A group with the name of an allowed worker is not that worker."""
    with pytest.raises(Denied):
        await kms.unwrap(wrap, CONTEXT, Caller(worker="somebody", groups=(caller.worker,)))


async def test_taking_a_policy_away_works_at_once(transit_key: Any, kms: Kms, wrap: Wrap, caller: Caller) -> None:
    """Though the worker's token is kept, the next unwrap is refused, and served again when the policy is back."""
    assert await kms.unwrap(wrap, CONTEXT, caller) == KEY
    transit_key.bao.drop_policy(f"tokenbroker-worker-{caller.worker}")
    with pytest.raises(Denied, match=f"tokenbroker-worker-{caller.worker}"):
        await kms.unwrap(wrap, CONTEXT, caller)
    allow(transit_key, f"tokenbroker-worker-{caller.worker}")
    assert await kms.unwrap(wrap, CONTEXT, caller) == KEY


async def test_a_worker_that_lost_its_group_is_refused(transit_key: Any, kms: Kms, wrap: Wrap) -> None:
    """A token made for other groups never serves."""
    group, worker = f"g-{token_hex(4)}", f"w-{token_hex(4)}"
    allow(transit_key, f"tokenbroker-group-{group}")
    assert await kms.unwrap(wrap, CONTEXT, Caller(worker=worker, groups=(group,))) == KEY
    with pytest.raises(Denied):
        await kms.unwrap(wrap, CONTEXT, Caller(worker=worker, groups=()))


async def test_a_refused_worker_harms_no_other(kms: Kms, wrap: Wrap, caller: Caller) -> None:
    """Calls for allowed and refused workers that run together get each their own answer."""
    strangers = [Caller(worker=f"stranger-{number}", groups=()) for number in range(8)]
    async with asyncio.TaskGroup() as tasks:
        served = [tasks.create_task(kms.unwrap(wrap, CONTEXT, caller)) for _ in range(8)]
        refused = [tasks.create_task(_refused(kms, wrap, stranger)) for stranger in strangers]
    assert [task.result() for task in served] == [KEY] * 8
    assert all(task.result() for task in refused)
    assert await kms.unwrap(wrap, CONTEXT) == KEY


async def _refused(kms: Kms, wrap: Wrap, caller: Caller) -> bool:
    with pytest.raises(Denied):
        await kms.unwrap(wrap, CONTEXT, caller)
    return True


async def test_a_workers_token_is_made_once_and_revoked_at_the_end(transit_key: Any, uri: str, caller: Caller) -> None:
    """Many calls of a worker take one token, with its policies alone and an end; closing leaves none behind."""
    bao = transit_key.bao
    before = bao.accessors()
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        broker = bao.accessors() - before
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(kms.unwrap(wrap, CONTEXT, caller))
        (accessor,) = bao.accessors() - before - broker
        made = bao.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        assert made["policies"] == sorted(
            [f"tokenbroker-group-{caller.groups[0]}", f"tokenbroker-worker-{caller.worker}"]
        )
        assert 0 < made["ttl"] <= 300
        assert (made["renewable"], made["orphan"]) == (False, True)
    assert bao.accessors() == before


async def test_closing_waits_for_no_server(standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer when tokens are to be revoked holds nobody up for long; they end by themselves."""
    monkeypatch.setattr("kms.transit.workers.REVOKE_S", 0.1)
    monkeypatch.setattr("kms.transit.server.REQUEST_S", 1000)
    made = {"client_token": "s.w", "accessor": "a", "lease_duration": 300, "policies": ["tokenbroker-worker-ci-1"]}
    standin.reply("auth/token/create/workers", 200, {"auth": made})
    async with open_transit(standin.uri(tmp_path) + "&worker_role=workers") as kms:
        with pytest.raises(Denied):
            await kms.unwrap(Wrap(key_version="", blob=b"vault:v1:QUJD"), {}, Caller(worker="ci-1", groups=()))
        asked, release = standin.hold("auth/token/revoke-accessor")
    assert asked.is_set()
    release.set()


async def test_a_refused_worker_costs_one_token(transit_key: Any, uri: str) -> None:
    """A worker that asks again and again makes the server make no more tokens."""
    bao = transit_key.bao
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        before = bao.accessors()
        for _ in range(4):
            assert await _refused(kms, wrap, Caller(worker="stranger", groups=()))
        assert len(bao.accessors() - before) == 1


async def test_a_workers_token_that_was_revoked_is_replaced(transit_key: Any, uri: str, caller: Caller) -> None:
    """A token that served and then does not is made anew before the worker is refused."""
    bao = transit_key.bao
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        before = bao.accessors()
        assert await kms.unwrap(wrap, CONTEXT, caller) == KEY
        (accessor,) = bao.accessors() - before
        bao.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        assert await kms.unwrap(wrap, CONTEXT, caller) == KEY


async def test_a_token_that_served_again_after_a_refusal_is_replaced_as_any_other(
    transit_key: Any, uri: str, caller: Caller
) -> None:
    """That its worker was once refused is forgotten when it is served."""
    bao, policy = transit_key.bao, f"tokenbroker-worker-{caller.worker}"
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        bao.drop_policy(policy)
        before = bao.accessors()
        assert await _refused(kms, wrap, caller)
        allow(transit_key, policy)
        assert await kms.unwrap(wrap, CONTEXT, caller) == KEY
        (accessor,) = bao.accessors() - before
        bao.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        assert await kms.unwrap(wrap, CONTEXT, caller) == KEY


async def test_a_token_near_its_end_is_not_used(
    transit_key: Any, uri: str, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's token is replaced while it still lives, so that no call meets its end."""
    monkeypatch.setattr("kms.transit.workers._USED_UP", 0.0)
    bao = transit_key.bao
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        before = bao.accessors()
        for _ in range(2):
            assert await kms.unwrap(wrap, CONTEXT, caller) == KEY
        assert len(bao.accessors() - before) == 2


async def test_the_least_used_token_is_forgotten_beyond_the_bound(
    transit_key: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more tokens are kept than the bound says; a worker that comes back gets a new one."""
    monkeypatch.setattr("kms.transit.workers.TOKENS_MAX", 2)
    bao = transit_key.bao
    group = f"g-{token_hex(4)}"
    allow(transit_key, f"tokenbroker-group-{group}")
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        before = bao.accessors()
        for worker in ("a", "b", "a", "c", "a"):
            await kms.unwrap(wrap, CONTEXT, Caller(worker=worker, groups=(group,)))
        assert len(bao.accessors() - before) == 3
        await kms.unwrap(wrap, CONTEXT, Caller(worker="b", groups=(group,)))
        assert len(bao.accessors() - before) == 4


@pytest.mark.parametrize(
    "caller",
    [
        Caller(worker="Pay-1", groups=()),
        Caller(worker="", groups=()),
        Caller(worker="pay/1", groups=()),
        Caller(worker="pay*", groups=()),
        Caller(worker="pay,root", groups=()),
        Caller(worker="pay\n", groups=()),
        Caller(worker="päy", groups=()),
        Caller(worker="p" * 64, groups=()),
        Caller(worker="pay-1", groups=("Cashiers",)),
        Caller(worker="pay-1", groups=tuple(f"g{number}" for number in range(257))),
    ],
    ids=lambda caller: f"{caller.worker[:8]!r}-{len(caller.groups)}",
)
async def test_a_name_that_cannot_name_a_policy_is_denied(kms: Kms, wrap: Wrap, caller: Caller) -> None:
    """It is never changed into one that can, for that may be another worker's."""
    with pytest.raises(Denied, match=r"cannot (name a policy|be given a token)"):
        await kms.unwrap(wrap, CONTEXT, caller)


async def test_a_token_role_that_is_not_there_is_denied(transit_key: Any, caller: Caller) -> None:
    """The message names what to check; no worker is served by the broker's own token."""
    transit_key.bao.policy(transit_key.mount, {**transit_key.rules(), "auth/token/create/missing": ["update"]})
    async with open_transit(transit_key.uri(worker_role="missing")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Denied, match="worker_role"):
            await kms.unwrap(wrap, CONTEXT, caller)


async def test_a_broker_that_may_make_no_tokens_is_denied(transit_key: Any, caller: Caller) -> None:
    """The path that its policy lacks is named."""
    async with open_transit(transit_key.uri(worker_role="elsewhere")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Denied, match="auth/token/create/elsewhere"):
            await kms.unwrap(wrap, CONTEXT, caller)


async def test_a_role_that_passes_the_brokers_identity_on_is_denied(transit_key: Any, caller: Caller) -> None:
    """A child of an AppRole's token has its entity, whose policies would be the worker's too."""
    transit_key.bao.token_role(transit_key.mount, orphan=False)
    async with open_transit(transit_key.approle_uri() + f"&worker_role={transit_key.mount}") as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Denied, match="orphan=true"):
            await kms.unwrap(wrap, CONTEXT, caller)


async def test_a_role_that_allows_only_some_policies_is_denied(transit_key: Any, caller: Caller) -> None:
    """A role that does not allow a group's policy refuses the token; a part of it would be another decision."""
    transit_key.bao.token_role(transit_key.mount, allowed_policies_glob=["tokenbroker-worker-*"])
    async with open_transit(transit_key.uri(worker_role=transit_key.mount)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Denied, match="making a token for a worker"):
            await kms.unwrap(wrap, CONTEXT, caller)


@pytest.mark.parametrize(
    ("auth", "match"),
    [
        ({"policies": ["tokenbroker-worker-ci-1", "broker"]}, "other policies"),
        ({"policies": []}, "other policies"),
        ({"entity_id": "e-1"}, "orphan=true"),
        ({"lease_duration": 0}, "outlive"),
        ({"lease_duration": 86400}, "outlive"),
        ({"client_token": "s.x\r\nX-Vault-Token: root"}, "not a token"),
    ],
)
async def test_a_token_with_more_than_was_asked_for_is_not_used(
    standin: Any, tmp_path: Path, auth: dict[str, object], match: str
) -> None:
    """A role that is set up wrongly gives no worker the powers of another."""
    made = {"client_token": "s.w", "lease_duration": 300, "policies": ["tokenbroker-worker-ci-1"], "entity_id": ""}
    standin.reply("auth/token/create/workers", 200, {"auth": {**made, **auth}})
    async with open_transit(standin.uri(tmp_path) + "&worker_role=workers") as kms:
        with pytest.raises(Denied, match=match):
            await kms.unwrap(Wrap(key_version="", blob=b"vault:v1:QUJD"), {}, Caller(worker="ci-1", groups=()))
    assert not any(path.startswith("/v1/transit/decrypt") for _, path, _ in standin.requests)
