"""A KMS that answers nonsense while a broker serves: a typed error for who asked, and no data key from it in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from broker.audit.entries import KeyChanged
from broker.vault.data_keys import kms_context
from broker.vault.errors import KeyCorrupt, KeyDenied, KeyUnavailable
from kms.catalog import open_kms

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


async def test_a_wrap_of_another_kms_key_opens_nothing(*, far: Any, cloud: Any, welcomed: Any) -> None:
    """A data key's row that is genuine, and holds what another key of the same KMS wrapped, counts as damaged."""
    record = next(each for each in far.broker.authority.data_keys if each.keyring == "far")
    context = kms_context(cluster_id=far.broker.root.cluster_id, keyring="far", data_key=record.id, purpose="value")
    async with open_kms(await cloud.key()) as other:
        stranger = await other.wrap(os.urandom(32), context)
    wraps = (msgspec.structs.replace(record.wraps[0], blob=stranger.blob),)
    entry = KeyChanged(at=far.broker.clock.now(), actor="admin:root", keyring="far", change="rewrapped")
    fresh = msgspec.structs.replace(record, rev=record.rev + 1, wraps=wraps, mac=b"")
    await far.broker.authority.commit([entry], updates=[fresh])
    await far.settled()
    far.broker.vault.flush()
    async with welcomed(far) as worker:
        assert (await worker.ask("lease", token=TOKEN))["code"] == "unavailable"
    assert far.broker.vault.counters.unwraps["corrupt", far.kms_key] == 1
    assert far.broker.vault.cached_keys() == 0


async def test_a_server_with_a_false_certificate_is_told_nothing(
    *, bao_servers: Any, config: Path, open_house: Any, prepare: Any, welcomed: Any, tmp_path: Path, aws_standin: Any
) -> None:
    """Under another CA a broker starts, refuses what that KMS key wraps, names it, and caches nothing."""
    (tmp_path / "transit").mkdir(mode=0o700)
    with bao_servers.serving(tls=True) as bao:
        trusted = tmp_path / "ca.pem"
        trusted.write_bytes(bao.cafile.read_bytes())
        uri = bao_servers.TransitKey(bao=bao, folder=tmp_path / "transit").uri(ca_file=trusted)
        with config.open("a") as file:
            file.write(f'\n[keyrings.far]\nkms_keys = ["{uri}"]\n')
        async with open_house() as house:
            await prepare(house)
            await house.put("github/far", b"sealed", keyring="far")
            workers = dict(house.workers)
        aws_standin.certificate(tmp_path)  # writes the certificate of another CA to the same file
        with capture_logs() as logs:
            async with open_house() as house:
                house.workers.update(workers)
                async with welcomed(house) as worker:
                    assert (await worker.lease("github/ci"))["value"] == "s3cret"
                    assert (await worker.ask("lease", token="github/far"))["code"] == "unavailable"
                assert house.broker.vault.cached_keys() == 1  # that of github/ci
        told = [line["error"] for line in logs if line["event"] == "kms_does_not_open"]
        assert any(uri.partition("?")[0] in line and "ca_file" in line for line in told), told
