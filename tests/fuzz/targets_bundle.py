"""Audit bundles, wholly hostile: any zip file, any members, and signed statements that say anything."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from pathlib import Path
from typing import Any

from coordinator.envelope import parse
from silos.verify import Report, show, verify_bundle
from tests.fuzz.target import NotJson, Target, object_of, written
from tests.silos import bundles


def archive(data: bytes, folder: Path) -> None:
    """Any file as a bundle: a report, never an exception, and never a good one unless it is the honest job."""
    _told(written(folder, "bundle.zip", data))


def members(data: bytes, folder: Path) -> None:
    """{member: text} over the honest bundle's members; null takes one away."""
    files = dict(bundles.FILES)
    for name, content in object_of(data).items():
        if content is None:
            files.pop(name, None)
        elif isinstance(content, str):
            files[name] = content.encode(errors="replace")
    try:
        packed = bundles.zipped(files)
    except (ValueError, UnicodeError):
        return  # a name that no zip file can hold
    _told(written(folder, "bundle.zip", packed))


def story(data: bytes, folder: Path) -> None:
    """{"step": {field: value}} over the honest job's steps, signed as its silos would."""
    play = bundles.honest()
    for place, changes in object_of(data).items():
        if not place.isdecimal() or int(place[:6]) >= len(play.steps) or not isinstance(changes, dict):
            continue
        step: Any = play.steps[int(place)]
        for name, value in changes.items():
            if name == "body" and isinstance(value, dict):
                step.body = {**step.body, **value}
            elif name in ("event", "time", "spec_digest", "prev") and isinstance(value, str):
                setattr(step, name, value)
            elif name == "seq" and type(value) is int and 0 <= value < 1 << 53:
                step.seq = value
    try:
        log = bundles.ledger().record(play)
    except ValueError:
        return  # a statement that cannot be written
    said = [parse(entry).statement for entry in log.entries]
    mine = [place for place, one in enumerate(said) if one.job == bundles.JOB]
    roster = [place for place, one in enumerate(said) if not one.job]
    heads = (one.body.get("head") for one in said if one.event == "consented")
    sizes = {head.get("size") for head in heads if isinstance(head, dict) and type(head.get("size")) is int}
    near = {size for size in sizes if 0 <= size <= len(said)}
    files = log.members({bundles.JOB: mine}, roster, {*mine, *roster}, near)
    _told(written(folder, "bundle.zip", bundles.zipped(files)))


def _told(path: Path) -> Report:
    report = verify_bundle(path)
    with contextlib.redirect_stdout(io.StringIO()):
        show(report)
    return report


@cache
def honest_zip() -> bytes:
    """The honest bundle."""
    return bundles.zipped(bundles.FILES)


TARGETS = (
    Target("bundle_zip", archive, (), limit_bytes=1 << 16),
    Target("bundle_members", members, (NotJson,), "json"),
    Target("bundle_story", story, (NotJson,), "json"),
)
