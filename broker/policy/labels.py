"""How many labels a token or a worker may carry, and what they may say. What labels mean is up to operators."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from broker.policy.errors import LabelsRefused, excerpt

LABELS_MAX: Final = 32
LABEL_VALUE_CHARS_MAX: Final = 256

_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,62}")


def parse_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Accept at most 32 labels: keys `[a-z0-9][a-z0-9._/-]{0,62}`, values of 0 to 256 printable characters.

    LabelsRefused: too many, or one key or value out of its bounds. The message names the key and never holds the value,
    because people paste secrets into the wrong field.
    """
    if len(labels) > LABELS_MAX:
        raise LabelsRefused(
            thing="labels",
            limit=f"there are {len(labels)}, at most {LABELS_MAX} are allowed",
            remedy="remove some",
        )
    for key, value in labels.items():
        if _KEY.fullmatch(key) is None:
            raise LabelsRefused(
                thing=f"label key {excerpt(key)}",
                limit="is not 1 to 63 characters a-z 0-9 . _ / - that begin with a letter or digit",
                remedy="choose a key like team or example.com/owner",
            )
        if len(value) > LABEL_VALUE_CHARS_MAX or not value.isprintable():
            raise LabelsRefused(
                thing=f"value of label {key}",
                limit=f"is not at most {LABEL_VALUE_CHARS_MAX} printable characters (it has {len(value)})",
                remedy="shorten it and remove line breaks and control characters",
            )
    return dict(labels)
