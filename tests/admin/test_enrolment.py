"""One-time codes: issued once, shown once, redeemed once, and only with proof of the key."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.admin.enrolment import CODE_LIFE, KEPT, NOISE_BURST
from broker.admin.errors import EnrolmentRefused, KeyRefused
from broker.admin.workers import NewWorker
from broker.audit.entries import EnrolmentIssued, WorkerChanged
from broker.audit.entries import EnrolmentRefused as RefusedEntry
from tokenbroker_client.transcript import enrolment_transcript

ROOT = "admin:root"


class Machine:
    """A worker to be: a key pair, and how it redeems."""

    def __init__(self, house) -> None:
        self.house = house
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()

    async def redeem(self, code: str, *, signs: str | None = None, public: bytes | None = None):
        code_id = (signs or code).rpartition(".")[0]
        public = public or self.public
        signature = self.key.sign(enrolment_transcript(code_id=code_id, public_key=public))
        return await self.house.services.enrolment.redeem(
            code, public_key=public, signature=signature, source="192.0.2.7"
        )


async def issue(house, worker="ci-1", groups=("ci",)) -> str:
    issued = await house.services.enrolment.issue(worker, groups=groups, actor=ROOT)
    return issued.code.reveal().decode()


async def reasons(house) -> list[str]:
    return [entry.reason for entry in await house.recorded() if isinstance(entry, RefusedEntry)]


async def test_a_redeemed_code_registers_the_worker_with_the_key_it_proved(house) -> None:
    """The worker gets the code's name and groups, and the key that signed; both steps are on record."""
    machine = Machine(house)
    worker = await machine.redeem(await issue(house))
    assert (worker.name, worker.groups) == ("ci-1", ("ci",))
    assert house.services.workers.get("ci-1").keys[0].public_key == machine.public
    entries = await house.recorded()
    assert [entry.worker for entry in entries if isinstance(entry, EnrolmentIssued)] == ["ci-1"]
    enrolled = next(entry for entry in entries if isinstance(entry, WorkerChanged))
    assert (enrolled.change, enrolled.actor) == ("enrolled", "worker:ci-1")


async def test_of_a_hundred_who_redeem_at_once_one_succeeds(house) -> None:
    """Single use holds under a race: one machine is enrolled, 99 are refused alike."""
    code = await issue(house)
    machines = [Machine(house) for _ in range(100)]
    outcomes = await asyncio.gather(*(machine.redeem(code) for machine in machines), return_exceptions=True)
    won = [machine for machine, outcome in zip(machines, outcomes, strict=True) if not isinstance(outcome, Exception)]
    assert len(won) == 1
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} == {EnrolmentRefused}
    worker = house.services.workers.get("ci-1")
    assert [key.public_key for key in worker.keys] == [won[0].public]
    assert await reasons(house) == ["code is used"] * 99


async def test_nothing_of_the_code_is_stored_but_a_hash(house, tmp_path) -> None:
    """Neither the database nor its log files hold the secret part of a code."""
    secret = (await issue(house)).rpartition(".")[2]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("broker.db"))
    assert secret.encode() not in stored
    assert next(iter(house.broker.authority.enrolments)).id.encode() in stored


async def test_every_refusal_looks_the_same_and_is_told_apart_in_the_log(house) -> None:
    """Unknown, malformed, used, expired, wrong proof, disabled worker: one answer, six reasons on record."""
    code = await issue(house)
    machine, other = Machine(house), Machine(house)
    tries = [
        machine.redeem(code.replace("tbe_", "tbx_")),
        machine.redeem(code[:-4] + "AAAA"),
        machine.redeem(code, signs="tbe_other.x"),
        machine.redeem(code, public=other.public),
    ]
    messages = set()
    for attempt in tries:
        with pytest.raises(EnrolmentRefused) as refused:
            await attempt
        messages.add(refused.value.message)
    await machine.redeem(code)
    with pytest.raises(EnrolmentRefused) as refused:
        await machine.redeem(code)
    messages.add(refused.value.message)
    late = await issue(house)
    house.jump(CODE_LIFE)
    with pytest.raises(EnrolmentRefused) as refused:
        await machine.redeem(late)
    messages.add(refused.value.message)
    await house.services.workers.disable("ci-1", actor=ROOT)
    with pytest.raises(EnrolmentRefused) as refused:
        await machine.redeem(await issue(house))
    messages.add(refused.value.message)
    assert len(messages) == 1
    assert await reasons(house) == [
        "malformed code",
        "no such code",
        "wrong proof",
        "wrong proof",
        "code is used",
        "code is expired",
        "worker is disabled",
    ]


async def test_strangers_cannot_fill_the_log(house) -> None:
    """Of two hundred made-up codes only the first ones are written down; refusals of a real code always are."""
    machine = Machine(house)
    code = await issue(house)
    made_up = code[:-4] + "AAAA"
    for _ in range(200):
        with pytest.raises(EnrolmentRefused):
            await machine.redeem(made_up)
    assert (await reasons(house)).count("no such code") == NOISE_BURST
    await machine.redeem(code)
    with pytest.raises(EnrolmentRefused):
        await machine.redeem(code)
    assert (await reasons(house))[-1] == "code is used"


async def test_a_key_nobody_should_have_says_nothing_about_the_code(house) -> None:
    """A small-order key is refused as such, before the code is looked at, and the code stays good."""
    code = await issue(house)
    machine = Machine(house)
    with pytest.raises(KeyRefused):
        await machine.redeem(code, public=bytes(32))
    assert (await machine.redeem(code)).name == "ci-1"


async def test_a_code_for_a_worker_that_is_there_adds_a_key(house) -> None:
    """Enrolling again keeps the keys there are, and the groups unless the code names some."""
    first = Machine(house)
    new = NewWorker(name="ci-1", public_key=first.public, groups=["old"])
    await house.services.workers.register(new, actor=ROOT)
    second = Machine(house)
    await second.redeem(await issue(house, groups=()))
    worker = house.services.workers.get("ci-1")
    assert [key.public_key for key in worker.keys] == [first.public, second.public]
    assert worker.groups == ("old",)
    await Machine(house).redeem(await issue(house, groups=("new",)))
    assert house.services.workers.get("ci-1").groups == ("new",)


async def test_old_codes_are_forgotten_as_fresh_ones_are_issued(house) -> None:
    """A day after its expiry a code leaves with the next one issued."""
    await issue(house)
    house.jump(CODE_LIFE + KEPT)
    await issue(house, worker="ci-2")
    assert [code.worker for code in house.broker.authority.enrolments] == ["ci-2"]
