"""What the program of the rotator `command` reads and writes: one JSON document each way (docs/spec/rotators.md).

Values stand as `value` (UTF-8 text) or `value_b64` (base64url without padding), as in the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from broker.secret import Secret
from broker.upstream.errors import Failed
from broker.upstream.port import NOTES_MAX, Made, Rotation
from tokenbroker_client.wire import BadEncoding, encode_value, unb64


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value, as exactly one of the two."""

    value: str | None = None
    value_b64: str | None = None

    def __repr__(self) -> str:
        """Keep the value out of logs."""
        return "Value(…)"

    def secret(self) -> Secret:
        """The value. ValueError: not exactly one of the two, or no base64url."""
        if (self.value is None) == (self.value_b64 is None):
            raise ValueError("not exactly one of value and value_b64")
        if self.value is not None:
            return Secret(self.value.encode())
        try:
            return Secret(unb64(self.value_b64 or ""))
        except BadEncoding as error:
            raise ValueError("no base64url") from error


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a program reads. new, current: null where there is none. At `finish`, `current` is the former value."""

    step: str
    rotation: str
    token: str
    settings: Mapping[str, str]
    credentials: Mapping[str, Value]
    notes: Mapping[str, str]
    new: Value | None
    current: Value | None


class Answer(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a program writes at `create`, and nothing at the other steps."""

    content_type: str | None = None
    notes: Annotated[dict[str, str], Meta(max_length=NOTES_MAX)] = {}
    credentials: dict[str, Value] = {}
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


def told(
    step: str, rotation: Rotation, settings: Mapping[str, str], *, new: Secret | None, current: Secret | None
) -> bytes:
    """The document for one step."""
    return msgspec.json.encode(
        Told(
            step=step,
            rotation=rotation.id,
            token=rotation.token,
            settings=settings,
            credentials={name: _shown(secret) for name, secret in rotation.credentials.items()},
            notes=rotation.notes,
            new=None if new is None else _shown(new),
            current=None if current is None else _shown(current),
        )
    )


def read_made(program: str, output: bytes) -> Made:
    """What `create` made. Failed: the output is not what docs/spec/rotators.md says; none of it is quoted."""
    try:
        answer = msgspec.json.decode(output, type=Answer)
        return Made(
            value=answer.secret(),
            content_type=answer.content_type,
            notes=answer.notes,
            credentials={name: value.secret() for name, value in answer.credentials.items()},
            expires_at=None if answer.expires_at is None else answer.expires_at.astimezone(UTC),
        )
    except (ValueError, OverflowError):
        # Without the cause's text, which may quote a value.
        raise Failed(
            f"what the program {program} wrote at the step create is not one JSON object with `value` or `value_b64`, "
            "and at most `content_type`, `notes`, `credentials` and `expires_at`; see docs/spec/rotators.md"
        ) from None


def _shown(secret: Secret) -> Value:
    text, encoding = encode_value(secret.reveal())
    return Value(value=text) if encoding == "utf8" else Value(value_b64=text)
