"""What programs (`command`) and services (`webhook`) of the operator's are told, and answer: one JSON object each way.

Values stand as `value` (UTF-8 text) or `value_b64` (base64url without padding), as in the API. The format is described
in docs/spec/rotator-command.md and docs/spec/rotator-webhook.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from broker.secret import Secret
from broker.upstream.errors import Failed
from broker.upstream.port import NOTES_MAX, Made, Rotation
from tokenbroker_client.wire import BadEncoding, encode_value, unb64

GENERATED_MIN = 16
GENERATED_MAX = 1024
"""Fewest and most characters that the broker draws for somebody."""


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
    """What they read. new, current: null where there is none. At `finish`, `current` is the former value."""

    step: str
    rotation: str
    token: str
    settings: Mapping[str, str]
    credentials: Mapping[str, Value]
    notes: Mapping[str, str]
    new: Value | None
    current: Value | None


class Answer(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What they answer at `create`, and nothing at the other steps. generate: in place of a value, how many characters
    of A-Z a-z 0-9 - _ the broker is to draw; each is worth 6 bits.
    """

    generate: Annotated[int, Meta(ge=GENERATED_MIN, le=GENERATED_MAX)] | None = None
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


def read_made(speaker: str, content: bytes) -> Made:
    """What `create` made. speaker: whom to name. Failed: this is no `Answer`; none of it is quoted."""
    try:
        answer = msgspec.json.decode(content, type=Answer)
        return Made(
            value=_value(answer),
            content_type=answer.content_type,
            notes=answer.notes,
            credentials={name: value.secret() for name, value in answer.credentials.items()},
            expires_at=None if answer.expires_at is None else answer.expires_at.astimezone(UTC),
        )
    except (ValueError, OverflowError, RecursionError):
        # Without the cause's text, which may quote a value.
        raise Failed(
            f"what {speaker} answered at the step create is not one JSON object with `value`, `value_b64` or "
            "`generate`, and at most `content_type`, `notes`, `credentials` and `expires_at`"
        ) from None


def _value(answer: Answer) -> Secret:
    if answer.generate is None:
        return answer.secret()
    if answer.value is not None or answer.value_b64 is not None:
        raise ValueError("a value, and one to be generated")
    return Secret(secrets.token_urlsafe(answer.generate)[: answer.generate].encode())


def _shown(secret: Secret) -> Value:
    text, encoding = encode_value(secret.reveal())
    return Value(value=text) if encoding == "utf8" else Value(value_b64=text)
