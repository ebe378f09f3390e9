"""What the errors of a PKCS#11 library mean: the one place that translates them.

python-pkcs11 has a class for each CKR_ code; codes that it does not know are its base class. Their texts say nothing
about keys. When an operation is tried again does not live here.
"""

from __future__ import annotations

import pkcs11
from pkcs11.exceptions import PKCS11Error

from kms.errors import BadKey, Corrupt, Denied, KmsError, Unavailable

LOST: tuple[type[PKCS11Error], ...] = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.UserNotLoggedIn,
    pkcs11.OperationActive,
    pkcs11.DeviceRemoved,
    pkcs11.DeviceError,
    pkcs11.NoSuchToken,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.SlotIDInvalid,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.WrappingKeyHandleInvalid,
    pkcs11.UnwrappingKeyHandleInvalid,
)
"""The session, the login or the device is gone, and with it every handle: starting anew may help."""
BLAMES_INPUT: tuple[type[PKCS11Error], ...] = (
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.WrappedKeyInvalid,
    pkcs11.WrappedKeyLenRange,
)
"""The token says that the blob is wrong."""
BLAMES_NOBODY: tuple[type[PKCS11Error], ...] = (
    pkcs11.GeneralError,
    pkcs11.FunctionFailed,
    pkcs11.ArgumentsBad,
    pkcs11.DataInvalid,
    pkcs11.DataLenRange,
    pkcs11.TemplateInconsistent,
    pkcs11.AttributeValueInvalid,
)
"""What tokens answer to a wrong blob (SoftHSM: CKR_GENERAL_ERROR), and to other troubles as well."""
PIN_REFUSED: tuple[type[PKCS11Error], ...] = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange)
"""The PIN is wrong, and the try was counted."""

_MEANINGS: tuple[tuple[tuple[type[PKCS11Error], ...], type[KmsError], str], ...] = (
    # No BadKey: an HSM that is away looks like a typing error, and must not stop a broker that has another key. The
    # text is that of `module`, and lists the tokens that are there for whoever made the error.
    ((pkcs11.NoSuchToken,), Unavailable, "{error}"),
    (
        (*LOST, pkcs11.SessionCount, pkcs11.DeviceMemory, pkcs11.HostMemory, pkcs11.FunctionCancelled),
        Unavailable,
        "the token does not serve now ({what}); the same call may succeed later",
    ),
    (BLAMES_INPUT, Corrupt, "the token does not open this blob ({what})"),
    (PIN_REFUSED, BadKey, "the token refuses the PIN ({what}); correct the file that pin-source names"),
    (
        (pkcs11.PinLocked, pkcs11.PinExpired),
        Denied,
        "the token lets nobody log in with this PIN ({what}); its security officer can set a new one",
    ),
    (
        (
            pkcs11.UserPinNotInitialized,
            pkcs11.MechanismInvalid,
            pkcs11.MechanismParamInvalid,
            pkcs11.FunctionNotSupported,
            pkcs11.KeyTypeInconsistent,
            pkcs11.WrappingKeyTypeInconsistent,
            pkcs11.UnwrappingKeyTypeInconsistent,
            pkcs11.KeySizeRange,
            pkcs11.WrappingKeySizeRange,
            pkcs11.UnwrappingKeySizeRange,
        ),
        BadKey,
        "the token cannot do this with this key ({what}); docs/howto/pkcs11.md says what it must do",
    ),
)


def is_lost(error: PKCS11Error) -> bool:
    """Whether starting the library anew may cure `error`."""
    # CKR_CRYPTOKI_NOT_INITIALIZED has no class of its own: somebody in this process has finalised the library.
    return isinstance(error, LOST) or (type(error) is PKCS11Error and "(not initialized)" in str(error))


def translated(error: PKCS11Error) -> KmsError:
    """The error of `kms.errors` that `error` means, told of no particular blob.

    What is not understood is Denied, CKR_GENERAL_ERROR among it: taken for "try later", it would keep cached keys in
    use for a reason that nobody knows.
    """
    what = type(error).__name__
    for kinds, meaning, text in _MEANINGS:
        if isinstance(error, kinds):
            return meaning(text.format(what=what, error=error))
    if is_lost(error):
        return Unavailable(f"its library was finalised by somebody else in this process ({error})")
    return Denied(f"the token answered {what}, which explains nothing; look into the log of its library")
