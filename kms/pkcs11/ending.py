"""Ends a PKCS#11 library without holding up the interpreter: what python-pkcs11 does not offer, by way of ctypes.

Of all its calls, python-pkcs11 makes C_Finalize alone with the interpreter's lock held: a library that hangs in it, for
want of its HSM, would stop the whole broker. And it makes that call when the interpreter ends, where a library that
hangs already would keep the process from ending.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from pkcs11.exceptions import PKCS11Error

if TYPE_CHECKING:
    from pkcs11._pkcs11 import lib as Library  # noqa: N812 - a class


class _FunctionList(ctypes.Structure):
    """The head of CK_FUNCTION_LIST (PKCS#11 v2.40, section 3.6)."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", ctypes.c_void_p),
        ("C_Finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
    )


def keep_from_ending(library: Library) -> None:
    """See to it that the end of the interpreter does not call into `library`."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))


def end(library: Library, path: Path) -> None:
    """C_Finalize for the library at `path`, whatever it says to that: it had no more to lose."""
    functions = ctypes.POINTER(_FunctionList)()
    if ctypes.CDLL(str(path)).C_GetFunctionList(ctypes.byref(functions)) == 0:
        functions.contents.C_Finalize(None)
    try:
        # At once refused by the library, which has ended; python-pkcs11 learns that it must be initialised again.
        library.finalize()
    except PKCS11Error:
        return
