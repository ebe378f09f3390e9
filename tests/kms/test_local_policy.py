"""The policy of a local key: which workers and which keyrings it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kms.conformance import KEY
from kms.errors import BadKey, Denied, Unavailable
from kms.local import open_local
from kms.port import Caller, Kms

PAYMENTS = {"app": "tokenbroker", "keyring": "payments"}
DEFAULT = {"app": "tokenbroker", "keyring": "default"}
OTHER = {"app": "tokenbroker", "keyring": "other"}
NO_KEYRING = {"app": "tokenbroker"}
POLICY = """\
format = "tokenbroker/kms-local-policy/v1"
keyrings = ["payments", "default"]

[[allow]]
keyrings = ["payments"]
workers = ["pay-1"]
groups = ["cashiers"]

[[allow]]
keyrings = ["default", "other"]
groups = ["ci"]
"""
PAY_1 = Caller(worker="pay-1", groups=())
CASHIER = Caller(worker="till-9", groups=("staff", "cashiers"))
CI = Caller(worker="ci-1", groups=("ci",))


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    """POLICY on disk, readable by everybody, as configuration is."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o644)
    return path


@pytest.fixture
async def fenced(key_file: Path, policy_file: Path) -> AsyncIterator[Kms]:
    """The key of `key_file` under POLICY."""
    async with open_local(f"local:{key_file}?policy={policy_file}") as kms:
        yield kms


async def _allowed(kms: Kms, context: dict[str, str], caller: Caller) -> bool:
    wrap = await kms.wrap(KEY, context)
    try:
        return await kms.unwrap(wrap, context, caller) == KEY
    except Denied:
        return False


@pytest.mark.parametrize(
    ("caller", "context", "allowed"),
    [
        (PAY_1, PAYMENTS, True),
        (CASHIER, PAYMENTS, True),
        (CI, PAYMENTS, False),
        (CI, DEFAULT, True),
        (PAY_1, DEFAULT, False),
        (CASHIER, DEFAULT, False),
        (Caller(worker="cashiers", groups=()), PAYMENTS, False),
        (Caller(worker="x", groups=("pay-1",)), PAYMENTS, False),
        (Caller(worker="pay-10", groups=("Cashiers", "cashier")), PAYMENTS, False),
        (Caller(worker="", groups=()), PAYMENTS, False),
    ],
)
async def test_a_worker_gets_the_keyrings_that_a_rule_allows(
    fenced: Kms, caller: Caller, context: dict[str, str], allowed: bool
) -> None:
    """Worker or group, and keyring, must stand in one rule, by their exact names."""
    assert await _allowed(fenced, context, caller) is allowed


@pytest.mark.parametrize(
    "context", [OTHER, NO_KEYRING, {"keyring": ""}, {"keyring": "Payments"}, {"keyrings": "payments"}]
)
async def test_a_fence_holds_without_a_worker(fenced: Kms, kms: Kms, context: dict[str, str]) -> None:
    """A keyring outside the list is denied for wrap, generate and unwrap, whoever asks."""
    wrap = await kms.wrap(KEY, context)
    for call in (fenced.wrap(KEY, context), fenced.generate(context), fenced.unwrap(wrap, context)):
        with pytest.raises(Denied, match="keyring"):
            await call


async def test_a_rule_does_not_reach_over_the_fence(fenced: Kms, kms: Kms) -> None:
    """A keyring that a rule names and the fence does not stays denied."""
    wrap = await kms.wrap(KEY, OTHER)
    with pytest.raises(Denied):
        await fenced.unwrap(wrap, OTHER, CI)


async def test_inside_the_fence_the_broker_itself_is_served(fenced: Kms) -> None:
    """Without a worker, the keyrings of the fence wrap and unwrap."""
    wrap = await fenced.wrap(KEY, PAYMENTS)
    assert await fenced.unwrap(wrap, PAYMENTS) == KEY
    await fenced.check()


async def test_without_a_policy_every_worker_is_denied(kms: Kms) -> None:
    """A key that cannot decide does not pretend to, and says what is missing."""
    wrap = await kms.wrap(KEY, PAYMENTS)
    with pytest.raises(Denied, match=r"\?policy=PATH"):
        await kms.unwrap(wrap, PAYMENTS, PAY_1)


async def test_a_policy_without_fence_serves_every_keyring_to_the_broker(key_file: Path, policy_file: Path) -> None:
    """Rules bind workers; without a list of keyrings, calls for no worker are served, workers only by rule."""
    policy_file.write_text(POLICY.replace('keyrings = ["payments", "default"]\n', "", 1))
    async with open_local(f"local:{key_file}?policy={policy_file}") as kms:
        for context in (OTHER, NO_KEYRING):
            assert await kms.unwrap(await kms.wrap(KEY, context), context) == KEY
        assert await _allowed(kms, OTHER, CI)
        assert not await _allowed(kms, NO_KEYRING, CI)


async def test_the_context_decides_before_the_blob_is_opened(fenced: Kms) -> None:
    """A worker that is denied learns nothing about the blob."""
    wrap = await fenced.wrap(KEY, PAYMENTS)
    with pytest.raises(Denied):
        await fenced.unwrap(type(wrap)(key_version="1", blob=bytes(85)), PAYMENTS, CI)


async def test_a_changed_policy_holds_from_the_next_call(fenced: Kms, policy_file: Path) -> None:
    """Taking a worker out of the file stops it at once."""
    assert await _allowed(fenced, PAYMENTS, PAY_1)
    policy_file.write_text(POLICY.replace('"pay-1"', '"pay-2"'))
    assert not await _allowed(fenced, PAYMENTS, PAY_1)


async def test_a_policy_that_goes_away_is_an_outage(fenced: Kms, policy_file: Path) -> None:
    """Without its policy a key does not serve, least of all everybody."""
    policy_file.unlink()
    for call in (fenced.wrap(KEY, PAYMENTS), fenced.wrap(KEY, OTHER), fenced.check()):
        with pytest.raises(Unavailable, match=r"policy\.toml: No such file"):
            await call


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622, 0o666])
async def test_a_policy_that_others_can_write_is_refused(key_file: Path, policy_file: Path, mode: int) -> None:
    """Whoever can write the policy would decide; reading it is nobody's secret."""
    policy_file.chmod(mode)
    with pytest.raises(BadKey, match="chmod 644"):
        async with open_local(f"local:{key_file}?policy={policy_file}"):
            pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"format = 1",
        b'format = "tokenbroker/kms-local-policy/v2"',
        b'keyrings = ["a"]',
        POLICY.encode() + b"allowed = []\n",
        POLICY.encode() + b'[[allow]]\nworkers = ["w"]\n',
        POLICY.encode() + b'[[allow]]\nkeyrings = []\nworkers = ["w"]\n',
        POLICY.encode() + b'[[allow]]\nkeyrings = "payments"\nworkers = ["w"]\n',
        POLICY.encode() + b'[[allow]]\nkeyrings = ["payments"]\nworker = ["w"]\n',
        POLICY.encode() + b'[[allow]]\nkeyrings = ["payments"]\nworkers = [1]\n',
        POLICY.encode().replace(b'["payments", "default"]', b"[]", 1),
        POLICY.encode() + b"[allow",
        b"x = " + b"[" * 10_000,
        b"# " + b"x" * 300_000,
    ],
    ids=lambda content: f"{len(content)} bytes, ends {content[-20:]!r}",
)
async def test_a_policy_that_cannot_be_read_refuses_to_start(key_file: Path, policy_file: Path, content: bytes) -> None:
    """A typing error in a policy must not widen it: unknown keys, wrong types and empty lists are BadKey."""
    policy_file.write_bytes(content)
    with pytest.raises(BadKey):
        async with open_local(f"local:{key_file}?policy={policy_file}"):
            pass
