"""`tokenbroker key`: data keys, by name; key bytes never leave the broker."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.admin.resealing import RATE_PER_S, RATE_PER_S_MAX
from broker.api.views.keys import DataKey, Keyring, KeyWrap, KmsKeyRetired, RetireKmsKey, RewrapFailed
from broker.cli import rewrapping
from broker.cli.client import segment
from broker.cli.failures import FAILED
from broker.cli.operating import Operator, group, operated
from broker.cli.output import Column, note
from broker.policy.names import parse_keyring_name

app = group("See, replace and end the keys that seal tokens.")
_NAMED_MAX = 10


@operated(app, "list", "tokenbroker key list --keyring default")
async def list_keys(
    operator: Operator, keyring: Annotated[str | None, typer.Option(metavar="K", help="Only its data keys.")] = None
) -> None:
    """List the data keys of every keyring, with the KMS keys that wrap them."""
    keys = await operator.client.every("/v1/keys", DataKey, {"keyring": keyring})
    operator.out.listing(
        keys,
        keys,
        Column("data key", lambda key: key.data_key),
        Column("keyring", lambda key: key.keyring),
        Column("state", lambda key: key.state),
        Column("created", lambda key: key.created_at),
        Column("seals reserved", lambda key: key.seals_reserved),
        Column("wrapped by", lambda key: [_wrap(wrap) for wrap in key.wraps]),
        Column("needs rewrap", lambda key: key.needs_rewrap),
        nothing="no data keys",
    )


@operated(app, "rotate", "tokenbroker key rotate default")
async def rotate(operator: Operator, keyring: Annotated[str, typer.Argument(metavar="KEYRING")]) -> None:
    """Give a keyring a fresh data key; what the one before sealed still opens."""
    done = await operator.client.post(f"/v1/keyrings/{parse_keyring_name(keyring)}/rotate", Keyring)
    operator.out.fact(done, f"{done.keyring} seals with {done.active_data_key}")


@operated(
    app,
    "rewrap",
    "tokenbroker key rewrap",
    "tokenbroker key rewrap payments --values --rate 500",
)
async def rewrap(
    operator: Operator,
    keyring: Annotated[
        str | None, typer.Argument(metavar="[KEYRING]", help="Only this one; default: all, and the root key.")
    ] = None,
    values: Annotated[
        bool, typer.Option("--values", help="Seal what is under former data keys anew, too, so that they can go.")
    ] = False,
    rate: Annotated[
        int, typer.Option(metavar="N", min=1, max=RATE_PER_S_MAX, help="At most so many values a second.")
    ] = RATE_PER_S,
) -> None:
    """Wrap data keys anew by the KMS keys that the configuration names now; may run while serving, and again."""
    totals = await rewrapping.rewrap(operator.client, keyring, values=values, rate_per_s=rate)
    operator.out.fact(totals, *(_told(total, values=values) for total in totals))
    failures = [failure for total in totals for failure in total.failures]
    for failure in failures[:_NAMED_MAX]:
        what = failure.data_key if isinstance(failure, RewrapFailed) else f"{failure.token} version {failure.version}"
        note(f"{what}: {failure.detail}")
    if failed := sum(total.failed for total in totals):
        note(f"tokenbroker: {failed} keys or values were left as they were; mend what is named, then run it again")
        raise typer.Exit(FAILED)


@operated(app, "destroy", "tokenbroker key destroy 3k7q2m5x9w4t8r6n")
async def destroy(operator: Operator, data_key: Annotated[str, typer.Argument(metavar="DATA_KEY")]) -> None:
    """Destroy a data key that seals nothing any more, for good; older backups need it."""
    done = await operator.client.post(f"/v1/keys/{segment(data_key)}/destroy", DataKey, again=True)
    operator.out.fact(done, f"data key {done.data_key} of {done.keyring} is {done.state}")


@operated(app, "retire", "tokenbroker key retire local:/var/lib/tokenbroker/kms.key")
async def retire(operator: Operator, kms_key: Annotated[str, typer.Argument(metavar="KMS_KEY")]) -> None:
    """Take the wraps of a KMS key out that the configuration names no more, so that it can be deleted."""
    done = await operator.client.post("/v1/kms-keys/retire", KmsKeyRetired, RetireKmsKey(kms_key=kms_key), again=True)
    root = " and of the root key" if done.root else ""
    operator.out.fact(done, f"{done.kms_key}: its wraps of {done.data_keys} data keys{root} are gone")


@operated(app, "flush", "tokenbroker key flush")
async def flush(operator: Operator) -> None:
    """Wipe the unwrapped data keys from the memory of every replica; they ask the KMS again."""
    await operator.client.post("/v1/keys/flush", type(None))
    operator.out.fact({"flushed": True}, "flushed")


def _wrap(wrap: KeyWrap) -> str:
    return f"{wrap.kms_key} ({wrap.key_version})" if wrap.key_version else wrap.kms_key


def _told(total: rewrapping.Total, *, values: bool) -> str:
    sealed = f", {total.values} values sealed anew, {total.remaining} left" if values else ""
    return f"{total.keyring}: {total.rewrapped} keys wrapped anew{sealed}"
