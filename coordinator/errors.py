"""What the coordinator answers when it does not do what it was asked; the text is one sentence for a person."""

from __future__ import annotations


class Refusal(Exception):
    """Base: the request is not carried out and nothing has changed."""


class Malformed(Refusal):
    """The request is not well formed, whoever sends it."""


class NotAuthenticated(Refusal):
    """We do not know who is asking."""


class Forbidden(Refusal):
    """We know who is asking, and it may not."""


class Unknown(Refusal):
    """There is no such thing, or none that the caller may know of."""


class Conflict(Refusal):
    """Well formed and allowed, but not in the present state."""


class TooLarge(Refusal):
    """More bytes than this request may have."""


class TooMany(Refusal):
    """More than this silo may ask for in this time, or at once."""


class RolledBack(Refusal):
    """The database is older than what this log has shown: it is read only until that is repaired."""


class Unavailable(Exception):
    """The database cannot be used now; what was asked may be asked again."""


class Corrupt(Exception):
    """The coordinator's own files contradict each other; it must not start or go on writing."""
