"""What a rotation policy may say, checked when it is made. When it comes due is in `schedule`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broker.policy.names import parse_token_name
from broker.policy.terms import WINDOWS_MAX
from broker.rotation.errors import PolicyOutOfBounds
from broker.rotation.rollouts import NewRollout
from broker.rotation.schedule import check_schedule
from storage.records.grants import Window

CALL_S: Final = 60
CALL_S_MAX: Final = 600
TRIED_CALL_S_MAX: Final = 60.0
"""Longest time for one call of a dry run, whatever the policy says: somebody waits for it."""
OVERLAP_S: Final = 600
DEADLINE_S: Final = 3600
WAIT_S: Final = 120.0
BAKE_S: Final = 5.0
ABORT_ABOVE: Final = 100
SPAN_S_MAX: Final = 31 * 86_400
SETTINGS_MAX: Final = 64
SETTING_CHARS_MAX: Final = 4096
NAME_CHARS_MAX: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class NewPolicy:
    """What somebody wants. The fields are those of `RotationPolicyRecord`."""

    token: str
    rotator: str
    settings: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    staging: Mapping[str, str] = field(default_factory=dict)
    staging_credentials: Mapping[str, str] = field(default_factory=dict)
    every_s: int | None = None
    cron: str = ""
    windows: Sequence[Window] = ()
    call_s: int = CALL_S
    overlap_s: int = OVERLAP_S
    deadline_s: int = DEADLINE_S
    shares: Sequence[int] = ()
    wait_s: float = WAIT_S
    bake_s: float = BAKE_S
    abort_above: int = ABORT_ABOVE


def check_policy(new: NewPolicy, *, now: datetime) -> None:
    """Accept a policy, all but what its rotator has to say. PolicyOutOfBounds, ScheduleRefused, RolloutRefused,
    NameRefused.
    """
    parse_token_name(new.token)
    for settings in (new.settings, new.staging):
        _check_settings(settings)
    for credentials in (new.credentials, new.staging_credentials):
        _check_credentials(credentials)
    if len(new.windows) > WINDOWS_MAX:
        raise PolicyOutOfBounds(f"windows: there are {len(new.windows)}, at most {WINDOWS_MAX} are allowed")
    check_schedule(every_s=new.every_s, cron=new.cron, windows=new.windows, now=now)
    _check_span("call_s", new.call_s, least=1, most=CALL_S_MAX)
    _check_span("overlap_s", new.overlap_s, least=0, most=SPAN_S_MAX)
    _check_span("deadline_s", new.deadline_s, least=new.overlap_s, most=SPAN_S_MAX)
    if new.shares:
        NewRollout(
            version=1, shares=new.shares, wait_s=new.wait_s, bake_s=new.bake_s, abort_above=new.abort_above
        ).check()


def _check_settings(settings: Mapping[str, str]) -> None:
    if len(settings) > SETTINGS_MAX:
        raise PolicyOutOfBounds(f"settings: there are {len(settings)}, at most {SETTINGS_MAX} are allowed")
    for name, text in settings.items():
        if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable() or len(text) > SETTING_CHARS_MAX:
            raise PolicyOutOfBounds(
                f"setting {name[:40]!a}: a name has 1 to {NAME_CHARS_MAX} printable characters, a text at most "
                f"{SETTING_CHARS_MAX}"
            )


def _check_credentials(credentials: Mapping[str, str]) -> None:
    for name, holder in credentials.items():
        if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise PolicyOutOfBounds(f"credential {name[:40]!a}: name it in 1 to {NAME_CHARS_MAX} characters")
        parse_token_name(holder)
    if len(set(credentials.values())) < len(credentials):
        raise PolicyOutOfBounds("credentials: two of them are the same token; name each token once")


def _check_span(name: str, seconds: float, *, least: float, most: float) -> None:
    if not least <= seconds <= most:
        raise PolicyOutOfBounds(f"{name}: {seconds:g} s is not {least:g} s to {most:g} s")
