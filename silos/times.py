"""Times on the wire: UTC, RFC 3339, whole seconds, one spelling."""

from __future__ import annotations

import datetime as dt

TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
_FORM = "%Y-%m-%dT%H:%M:%SZ"


def utcnow() -> dt.datetime:
    """The clock of this process."""
    return dt.datetime.now(dt.UTC)


def to_text(moment: dt.datetime) -> str:
    """A moment with a time zone as wire text."""
    return moment.astimezone(dt.UTC).strftime(_FORM)


def from_text(text: str) -> dt.datetime:
    """Raises: ValueError if the text is not in the one accepted form."""
    return dt.datetime.strptime(text, _FORM).replace(tzinfo=dt.UTC)
