"""Whose fault it is: ours, a named peer's, nobody's, or a refusal."""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of everything a protocol run can raise on purpose."""


class LocalProtocolError(ProtocolError):
    """We broke the protocol, or our own input is not acceptable."""


class RemoteProtocolError(ProtocolError):
    """A named peer sent something the protocol does not allow."""

    def __init__(self, party: str, tag: str, why: str) -> None:
        super().__init__(f"{party} broke the protocol at step '{tag}': {why}")
        self.party, self.tag, self.why = party, tag, why


class PeerLost(ProtocolError):
    """A named peer stopped answering; nobody is to blame yet.

    silent: it said nothing for too long, rather than closing the link; it may not be able to say what happened to it.
    """

    def __init__(self, party: str, step: str, why: str = "the link closed", *, silent: bool = False) -> None:
        super().__init__(f"lost {party} at step '{step}': {why}")
        self.party, self.step, self.why, self.silent = party, step, why, silent


class Refused(ProtocolError):
    """A rule all parties agreed on forbids going further (for example: too few matches)."""


class OutOfRange(ProtocolError):
    """A value left the range in which an operation is right; it was noticed instead of wrapping into a wrong number.

    what: the tensor's name.  operation: what was about to be done with it.  allowed: the range, in words.
    """

    def __init__(self, what: str, operation: str, allowed: str) -> None:
        super().__init__(f"'{what}' left the range of {operation}: it must be {allowed}")
        self.what, self.operation, self.allowed = what, operation, allowed
