"""What readiness asks of each part of a running broker. How often, and what strangers are told, is in `api.probes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from broker.api.probes import Check, State
from broker.errors import Unavailable
from broker.vault.vault import Vault

if TYPE_CHECKING:
    from broker.app import Broker

LATELY_S: Final = 10.0
"""A KMS key that did well within this time is not asked again for readiness: probes must not cost its quota."""

log = structlog.get_logger()


def make_checks(broker: Broker) -> dict[str, Check]:
    """The checks of this broker, by the names that answers show."""

    async def storage() -> State:
        await broker.storage.check()
        return State.OK

    async def audit() -> State:
        if not broker.journal.healthy():
            raise Unavailable("the audit log cannot be written, or its checkpoints do not keep up")
        return State.OK

    async def feed() -> State:
        if broker.feed.trouble:
            raise Unavailable(broker.feed.trouble)
        return State.OK

    async def clock() -> State:
        if broker.roll.skew.trouble:
            raise Unavailable(broker.roll.skew.trouble)
        return State.OK

    async def accepting() -> State:
        if broker.sessions.draining:
            raise Unavailable("the broker is draining")
        return State.OK

    kms = KmsCheck(broker.vault)
    return {"storage": storage, "kms": kms, "audit": audit, "feed": feed, "clock": clock, "accepting": accepting}


class KmsCheck:
    """Asks the KMS keys: OK when all of them open, DEGRADED when some do.

    Which do not is told to the log, once for each change; whoever asks for readiness may be a stranger.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._told: dict[str, str] = {}

    async def __call__(self) -> State:
        """Unavailable: no KMS key opens."""
        known = await self._vault.probe(lately_s=LATELY_S)
        unwell = {each.kms_key: each.last_error or "no answer" for each in known if not each.well()}
        self._tell(unwell)
        if len(unwell) == len(known):
            raise Unavailable("no KMS key answers, or all refuse")
        return State.DEGRADED if unwell else State.OK

    def _tell(self, unwell: dict[str, str]) -> None:
        for kms_key, error in unwell.items():
            if self._told.get(kms_key) != error:
                log.error("kms_does_not_open", kms_key=kms_key, error=error)
        for kms_key in self._told.keys() - unwell.keys():
            log.info("kms_opens_again", kms_key=kms_key)
        self._told = unwell
