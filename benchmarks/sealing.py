"""Opening and sealing a value of 64 bytes, against AES-256-GCM alone under a key that is ready."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.cluster import VALUE_BYTES
from benchmarks.figures import Figure, alone, in_turns, ratio
from broker.vault.envelope import FMT, ValueContexts, open_value, seal_value


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """One figure for each direction."""
    key, nonce, value = os.urandom(32), os.urandom(12), os.urandom(VALUE_BYTES)
    contexts = ValueContexts(cluster_id="c" * 52, keyring="default", data_key="k" * 24)
    sealed = seal_value(key=key, context=contexts.of("bench/t1", 1), value=value)
    bare = AESGCM(key)
    encrypted = bare.encrypt(nonce, value, None)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "opening": (
            lambda: open_value(fmt=FMT, key=key, context=contexts.of("bench/t1", 1), sealed=sealed),
            lambda: bare.decrypt(nonce, encrypted, None),
        ),
        "sealing": (
            lambda: seal_value(key=key, context=contexts.of("bench/t1", 1), value=value),
            lambda: bare.encrypt(nonce, value, None),
        ),
    }
    calls = 4_000 if quick else 20_000
    found = []
    for name, (ours, theirs) in pairs.items():
        us, bare_us = in_turns(7, lambda ours=ours: each_us(ours, calls), lambda theirs=theirs: each_us(theirs, calls))
        found.append(
            Figure(
                name=name,
                question=f"{name} a value of {VALUE_BYTES} bytes",
                value=ratio(us, bare_us),
                unit="bare AES-256-GCM",
                goal=None,
                detail=f"{statistics.median(us):.1f} us, with key, nonce and commitment derived for it; "
                f"bare {statistics.median(bare_us):.2f} us",
            )
        )
    return found


def each_us(call: Callable[[], object], calls: int) -> float:
    """Microseconds of CPU of one call."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls * 1e6


if __name__ == "__main__":
    alone(figures)
