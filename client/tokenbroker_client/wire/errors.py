"""What is wrong with bytes from the wire, as one tree of two.

    WireError
    ├── BadFrame        a frame that cannot be read, or does not fit
    └── BadEncoding     base64url or a value that is not what its encoding promises

Both are ValueErrors too. Their messages never repeat what may be secret. Errors of a session are in
`tokenbroker_client.errors`.
"""

from __future__ import annotations


class WireError(ValueError):
    """What came over the wire cannot be used."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class BadFrame(WireError):
    """The frame is not JSON, not an object, of an unknown type, or has a field that is missing or out of bound."""

    def __init__(
        self, message: str | None = None, *, request_id: int | None = None, unknown_type: bool = False
    ) -> None:
        """request_id: the `id` that the frame has all the same. unknown_type: readable, but of no type known here."""
        super().__init__(message)
        self.request_id = request_id
        self.unknown_type = unknown_type


class BadEncoding(WireError):
    """The text is not what its encoding promises."""
