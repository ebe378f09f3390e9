"""What a token's value and its descriptions may be. Names and labels are in `broker.policy`."""

from __future__ import annotations

import re
from typing import Final

from broker.admin.errors import ValueRefused
from broker.policy.errors import excerpt

VALUE_BYTES_MAX: Final = 64 * 1024
CONTENT_TYPE_CHARS_MAX: Final = 128
PREVIOUS_VALID_S_MAX: Final = 31 * 86_400

_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - an HTTP token (RFC 9110 section 5.6.2), no secret
_MEDIA_TYPE: Final = re.compile(rf'{_TOKEN}/{_TOKEN}(?: *; *{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')


def check_value(token: str, value: bytes) -> bytes:
    """Accept 1 byte to 64 KiB. ValueRefused: empty or longer; the message never holds the value."""
    if not 1 <= len(value) <= VALUE_BYTES_MAX:
        raise ValueRefused(
            f"value of {token}: it has {len(value)} bytes, 1 to {VALUE_BYTES_MAX} are allowed; shorten it"
        )
    return value


def check_content_type(text: str | None, value: bytes) -> str:
    """Accept a media type (RFC 9110 section 8.3.1) of at most 128 characters.

    None: `text/plain` for what is UTF-8, else `application/octet-stream`. ValueRefused: anything else.
    """
    if text is None:
        return "text/plain" if _is_utf8(value) else "application/octet-stream"
    if len(text) > CONTENT_TYPE_CHARS_MAX or _MEDIA_TYPE.fullmatch(text) is None:
        raise ValueRefused(
            f"content type {excerpt(text)}: it is not a media type of at most {CONTENT_TYPE_CHARS_MAX} characters; "
            "write for example text/plain"
        )
    return text


def check_previous_valid_s(seconds: int) -> int:
    """Accept 0 (unknown) to 31 days. ValueRefused: anything else."""
    if not 0 <= seconds <= PREVIOUS_VALID_S_MAX:
        raise ValueRefused(f"previous_valid_s: {seconds} is not 0 to {PREVIOUS_VALID_S_MAX} (31 days)")
    return seconds


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
