"""A KMS that answers nonsense while a broker serves: a typed error for who asked, and no data key from it in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.vault.errors import KeyCorrupt, KeyDenied, KeyUnavailable

OVERSIZED = b'{"Plaintext": "' + b"A" * 2**21 + b'"}'
TOKEN = "far/key"


@pytest.fixture
async def far(cloud: Any, config: Path, open_house: Any, prepare: Any) -> AsyncIterator[Any]:
    """A broker whose keyring `far` has one key of the cloud; nothing is cached, and ci-1 may lease its token."""
    uri = await cloud.key()
    with config.open("a") as file:
        file.write(f'\n[keyrings.far]\nkms_keys = ["{uri}"]\n')
    async with open_house() as house:
        await prepare(house)
        await house.grant("worker:ci-1", "far/*")
        await house.put(TOKEN, b"sealed", keyring="far")
        house.broker.vault.flush()
        house.kms_key = uri
        yield house


def fault(cloud: Any, proxies: Any, kms_key: str, kind: str, elsewhere: str) -> Any:
    """What the proxy does instead of passing requests on."""
    answers: dict[str, dict[str, Any]] = {
        "garbage": {"body": b"\x00\xff no JSON"},
        "other JSON": {"body": b"[1, 2, 3]"},
        "nothing": {"body": b""},
        "a page": {"body": b"<html>It works!</html>", "content_type": "text/html"},
        "oversized": {"body": OVERSIZED},
        "another key": {"body": cloud.opened(kms_key, os.urandom(32))},
        "a short key": {"body": cloud.opened(kms_key, os.urandom(16))},
        "redirect": {"status": 307, "headers": {"Location": elsewhere}},
    }
    return proxies.Fault(**{"status": 200, "content_type": "application/json", **answers[kind]})


KINDS = ("garbage", "other JSON", "nothing", "a page", "oversized", "another key", "a short key", "redirect")


@pytest.mark.parametrize("kind", KINDS)
async def test_nonsense_opens_nothing_and_is_not_kept(
    *, far: Any, cloud: Any, proxies: Any, welcomed: Any, kind: str
) -> None:
    """The worker is told to come again, the operator which KMS key it was; nothing is cached, no redirect followed."""
    async with proxies.FaultProxy(cloud.proxy.url) as elsewhere, welcomed(far) as worker:
        cloud.proxy.fault = fault(cloud, proxies, far.kms_key, kind, elsewhere.url)
        with capture_logs() as logs:
            refused = await worker.ask("lease", token=TOKEN)
        assert (refused["type"], refused["code"]) == ("error", "unavailable")
        assert far.broker.vault.cached_keys() == 0
        (result,) = {result for result, uri in far.broker.vault.counters.unwraps if uri == far.kms_key} - {"ok"}
        # A standby node of a transit server redirects, so there it is an outage; here, too, it is not followed.
        assert result in {"corrupt", "denied"} or (kind, result) == ("redirect", "unavailable")
        told = [line["failure"] for line in logs if line["event"] == "data_key_refused"]
        assert result == "unavailable" or far.kms_key in str(told)
        assert elsewhere.total == 0
        assert await far.leases() == []
        with pytest.raises((KeyCorrupt, KeyDenied, KeyUnavailable)):
            await far.services.keys.rotate("far", actor="admin:root")
        cloud.recover()
        far.broker.vault.flush()
        assert (await worker.lease(TOKEN))["value"] == "sealed"


@pytest.mark.parametrize("kind", ["garbage", "another key", "oversized"])
async def test_nonsense_ends_what_was_cached(*, far: Any, cloud: Any, proxies: Any, welcomed: Any, kind: str) -> None:
    """It is no outage: a data key in memory whose KMS key answers nonsense when it is asked again is wiped."""
    async with welcomed(far) as worker:
        assert (await worker.lease(TOKEN))["value"] == "sealed"
        cloud.proxy.fault = fault(cloud, proxies, far.kms_key, kind, cloud.proxy.url)
        cache = far.broker.vault._cache
        (held,) = [each for each in cache._held.all() if each.kms_key == far.kms_key]
        held.refresh_at = 0.0
        cache.sweep()
        await far.until(lambda: not held.live)
        assert (await worker.ask("lease", token=TOKEN))["code"] == "unavailable"
