"""`tokenbroker key`: data keys, by name; key bytes never leave the broker."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.api.views.keys import DataKey, Keyring
from broker.cli.operating import Operator, group, operated
from broker.cli.output import Column
from broker.policy.names import parse_keyring_name

app = group("See and replace the keys that seal tokens.")


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
        Column("wrapped by", lambda key: key.kms_keys),
        nothing="no data keys",
    )


@operated(app, "rotate", "tokenbroker key rotate default")
async def rotate(operator: Operator, keyring: Annotated[str, typer.Argument(metavar="KEYRING")]) -> None:
    """Give a keyring a fresh data key; what the one before sealed still opens."""
    done = await operator.client.post(f"/v1/keyrings/{parse_keyring_name(keyring)}/rotate", Keyring)
    operator.out.fact(done, f"{done.keyring} seals with {done.active_data_key}")


@operated(app, "flush", "tokenbroker key flush")
async def flush(operator: Operator) -> None:
    """Wipe the unwrapped data keys from the memory of the replica that answers; it asks the KMS again."""
    await operator.client.post("/v1/keys/flush", type(None))
    operator.out.fact({"flushed": True}, "flushed")
