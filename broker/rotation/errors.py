"""What rotation refuses beyond the broker's own tree (`broker.errors`), each under the branch it belongs to.

BadRequest
├── PolicyOutOfBounds   a setting, a credential or a span of a policy
├── ScheduleRefused     when to rotate makes no sense
└── NoStaging           a dry run that would touch what is in use
Conflict
├── RotationOnItsWay    it has to end first
└── NothingToAbandon    there is no rotation, or its value is in use
Unavailable
└── NotTheDriver        another replica drives rotations
"""

from __future__ import annotations

from broker.errors import BadRequest, Conflict, Unavailable


class PolicyOutOfBounds(BadRequest):
    """A rotation policy is out of its bounds."""

    code = "rotation_policy"


class ScheduleRefused(BadRequest):
    """The times at which to rotate make no sense."""

    code = "rotation_schedule"


class NoStaging(BadRequest):
    """A dry run needs a staging target, so that it touches nothing in use; name one with --staging."""

    code = "no_staging"


class RotationOnItsWay(Conflict):
    """A rotation of the token is on its way; wait for it, or abandon it."""

    code = "rotation_on_its_way"


class NothingToAbandon(Conflict):
    """No rotation of the token is on its way, or its value is in use already."""

    code = "nothing_to_abandon"


class NotTheDriver(Unavailable):
    """Another replica drives rotations now."""
