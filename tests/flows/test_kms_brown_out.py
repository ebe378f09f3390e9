"""A cloud KMS at 2 s latency with 95 % errors, over real sockets: whoever leases what is cached does not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

STRUCK = b'{"__type":"KMSInternalException","message":"struck"}'


@pytest.fixture
async def kms(moto: Any, proxies: Any, config: Path, aws_environment: None) -> AsyncIterator[Any]:
    """The proxy before a KMS whose key the keyring `cloud` has; cached keys are proved again each second."""
    arn = await asyncio.to_thread(moto.create_key)
    async with proxies.FaultProxy(moto.url) as proxy:
        with config.open("a") as file:
            file.write(
                f'\n[keyrings.cloud]\nkms_keys = ["aws-kms:{arn}?endpoint={proxy.url}"]\n'
                'cache_soft_ttl = "1s"\ncache_hard_ttl = "1h"\n'
            )
        yield proxy


@pytest.fixture
async def cloudy(kms: Any, open_house: Any, prepare: Any) -> AsyncIterator[Any]:
    """A broker with the token cloud/key in that keyring, which ci-1 may lease."""
    async with open_house() as house:
        await prepare(house)
        await house.grant("worker:ci-1", "cloud/*")
        await house.put("cloud/key", b"sun", keyring="cloud")
        yield house


async def test_cached_leases_wait_for_no_kms(cloudy: Any, kms: Any, proxies: Any, welcomed: Any) -> None:
    """While proving again takes 2 s and fails, two hundred leases are granted of which none waits for a data key."""
    counters = cloudy.broker.vault.counters
    async with welcomed(cloudy) as worker:
        await worker.lease("cloud/key")
        kms.forget()
        kms.fault = proxies.Fault(delay_s=2.0, share=0.95, status=500, body=STRUCK)
        await cloudy.until(lambda: kms.in_flight > 0, within_s=20)
        misses = counters.misses
        for number in range(200):
            assert (await worker.lease("cloud/key" if number % 2 else "github/ci"))["value"] in {"sun", "s3cret"}
            assert counters.waiters == 0
        await cloudy.until(lambda: cloudy.broker.vault.health()[-1].failures > 0, within_s=10)

        async def excused() -> bool:
            assert (await worker.lease("cloud/key"))["value"] == "sun"
            return sum(counters.stale_served.values()) > 0

        await cloudy.until(excused, within_s=20)
        assert counters.misses == misses


async def test_others_do_not_wait_for_what_is_not_cached(cloudy: Any, kms: Any, proxies: Any, welcomed: Any) -> None:
    """Fifty workers' requests that need the KMS wait together for one call; leases under another KMS are granted."""
    async with welcomed(cloudy) as worker:
        cloudy.broker.vault.flush()
        await worker.lease("github/ci")
        kms.forget()
        kms.fault = proxies.Fault(hang=True)
        for number in range(50):
            await worker.send(type="lease", id=1000 + number, token="cloud/key")
        await cloudy.until(lambda: kms.in_flight == 1, within_s=20)
        for _ in range(50):
            assert (await worker.lease("github/ci"))["value"] == "s3cret"
        codes = {(await worker.answer(1000 + number))["code"] for number in range(50)}
        assert codes == {"unavailable"}
        assert kms.total <= 2  # one call, of which the SDK may have tried another attempt


async def test_it_is_served_again_when_the_kms_is_well(cloudy: Any, kms: Any, proxies: Any, welcomed: Any) -> None:
    """After a total outage the first request that may ask is served, by one call for the data key."""
    async with welcomed(cloudy) as worker:
        cloudy.broker.vault.flush()
        kms.fault = proxies.Fault(hang_up=True)
        refused = await worker.ask("lease", token="cloud/key")
        assert refused["code"] == "unavailable"
        kms.fault = proxies.Fault()
        kms.forget()

        async def served() -> bool:
            return "value" in await worker.ask("lease", token="cloud/key")

        await cloudy.until(served, within_s=20)
        assert kms.counts == {"TrentService.Decrypt": 1}


async def test_calls_stay_far_below_the_bucket(cloudy: Any, kms: Any, proxies: Any, welcomed: Any) -> None:
    """However many requests come, a KMS that errs is asked a few times, and then left alone."""
    async with welcomed(cloudy) as worker:
        cloudy.broker.vault.flush()
        kms.forget()
        kms.fault = proxies.Fault(status=500, body=STRUCK)
        for _ in range(300):
            assert (await worker.ask("lease", token="cloud/key"))["code"] == "unavailable"
        assert 1 <= kms.total <= 100
