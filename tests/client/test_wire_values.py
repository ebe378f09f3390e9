"""Bytes survive the wire, and base64url has exactly one spelling."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbroker_client import wire

# A busy machine makes slow inputs, which says nothing about the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def granted(value: bytes) -> wire.Granted:
    """Return a grant of that value, with the longest names."""
    text, encoding = wire.encode_value(value)
    return wire.Granted(
        id=wire.ID_MAX,
        lease="l" * 64,
        token="/".join(["t" * 63] * 8),
        version=wire.ID_MAX,
        value=text,
        encoding=encoding,
        content_type="c" * 128,
        ttl_s=300,
        max_ttl_s=3600,
        expires_at=1795312345.1,
    )


@PATIENT
@given(st.binary(min_size=1, max_size=2000) | st.text(min_size=1, max_size=2000).map(str.encode))
def test_any_value_survives_a_frame(value: bytes) -> None:
    """What was stored is what the worker gets, byte for byte."""
    frame = wire.decode_server_frame(wire.encode_frame(granted(value)))
    assert isinstance(frame, wire.Granted)
    assert wire.decode_value(frame.value, frame.encoding) == value


@pytest.mark.parametrize(
    "value",
    [b"\x00" * 65536, b'"' * 65536, b"\xff" * 65536, "ü".encode() * 32768, b"a" * 65536, b"\x7f" * 65536],
    ids=["controls", "quotes", "binary", "umlauts", "ascii", "delete"],
)
def test_the_longest_value_fits_a_frame(value: bytes) -> None:
    """64 KiB of anything travel in one frame, even signs that JSON spells with six characters."""
    frame = wire.decode_server_frame(wire.encode_frame(granted(value)))
    assert isinstance(frame, wire.Granted)
    assert wire.decode_value(frame.value, frame.encoding) == value


def test_text_travels_as_text() -> None:
    """A value that is UTF-8 can be read by a client that knows no base64."""
    assert wire.encode_value("ghp_ü".encode()) == ("ghp_ü", wire.Encoding.UTF8)


def test_other_bytes_travel_as_base64url() -> None:
    """A value that is not UTF-8 is base64url without padding."""
    assert wire.encode_value(b"\xff\xfe") == ("__4", wire.Encoding.B64)


def test_a_lone_surrogate_is_no_text() -> None:
    """A value that UTF-8 cannot hold is refused, and the refusal does not show it."""
    with pytest.raises(wire.BadEncoding) as caught:
        wire.decode_value("secret\ud800", wire.Encoding.UTF8)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@PATIENT
@given(st.binary(max_size=200))
def test_base64url_round_trips(data: bytes) -> None:
    """Every byte string has a text, without padding, that decodes to it."""
    text = wire.b64(data)
    assert "=" not in text
    assert wire.unb64(text, length=len(data)) == data


@PATIENT
@given(st.text(alphabet="AQgwZz09-_+/= \n", max_size=8))
def test_base64url_has_one_spelling(text: str) -> None:
    """A text that decodes at all is the one text of its bytes."""
    try:
        data = wire.unb64(text)
    except wire.BadEncoding:
        return
    assert wire.b64(data) == text


@pytest.mark.parametrize("text", ["AA==", "AB", "A", "AAA=", "+/+/", "AA\n", " AA", "AAAAA", "ä", "AAB"])
def test_other_spellings_are_refused(text: str) -> None:
    """Padding, white space, the other alphabet, impossible lengths and stray trailing bits are errors."""
    with pytest.raises(wire.BadEncoding):
        wire.unb64(text)


def test_a_wrong_length_is_refused() -> None:
    """Keys and nonces have one length."""
    with pytest.raises(wire.BadEncoding, match="2 bytes where 32 belong"):
        wire.unb64("AAA", length=32)
