"""Everything that any protocol sends is uniform, whatever the secrets, and no message is forgotten here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mpc.messages import FOR_NO_JOB
from mpc.session import Session
from mpc.wire import recv_words, send_words
from tests.declared import all_reveals
from tests.harness import Run
from tests.mpc.playing import play, split
from tests.mpc.protocol_runs import CASES
from tests.mpc.transcripts import (
    ENDS,
    ENOUGH,
    FALSE_ALARM,
    MESSAGES_ALONE,
    MOST_TESTS,
    OPENED,
    Case,
    Checks,
    Streams,
    check_alike,
    check_uniform,
    enough,
    fix_keys,
    forgotten,
    secret,
    shared,
    streams,
    tags,
)
from tests.mpc.transfers import cheap_set_up

ROOT = Path(__file__).parents[2]
SECRETS = range(3)

EXEMPT = {
    "dealer/key": "a fresh key",
    "dealer/request": "kinds and shapes, which the dealer may know",
    "contribution/told": "each owner's part of the AUC, on purpose",
    "crypten/barrier": "is empty",
    "crypten/broadcast": "what the caller passes; whatever in CrypTen calls it is refused",
    "crypten/common-key": "a fresh key",
    "crypten/gather": "what the caller passes; whatever in CrypTen calls it is refused",
    "crypten/next-key": "a fresh key",
    "crypten/size": "a public size",
    "checkpoint/agree": "a nonce, a fresh key, and hashes of public things; test_checkpoints.py",
    "evaluate/auc": "the AUC, on purpose",
    "family/scale": "a public power of two, on purpose",
    "glm/range": "whether scores are in range, on purpose",
    "glm/shape": "public sizes and a hash of settings",
    "linear/shape": "public sizes and settings",
    "losses/label": "a public power of two",
    "metrics/request": "what is asked for; public",
    "multinomial/shape": "public sizes and settings",
    "network/shape": "public sizes",
    "online/ask": "which row is asked for, on purpose",
    "resuming/kept": "a hash of which attempt a result is of; public",
    "score/model": "a hash of what all agreed on",
    "score/shape": "public sizes",
    "sparse/shape": "public sizes and settings",
    "segments/names": "names of groups, on purpose",
    "trees/routing": "only if the settings say so, on purpose",
    "trees/score": "public sizes and a hash of the revealed structure",
    "trees/shape": "public sizes",
    "trees/split": "opens a split to its owner, on purpose",
    "stability/counts": "opens counts, on purpose",
    "statistics/names": "columns, and categories' levels by number only; test_statistics_job.py",
    "statistics/shape": "public sizes and settings",
    "stepwise/column": "which column enters or leaves, on purpose; test_stepwise.py",
    "stepwise/shape": "public sizes and settings",
    "woe/shape": "public sizes, settings and the number of positives, on purpose",
    "woe/values": "information values, on purpose; test_woe.py",
    "delegated/agreed": "a hash of what the helper told, under a key that it does not have; test_delegated.py",
    "delegated/confirm": "a hash that shows the same key; test_delegated.py",
    "delegated/decoys": "decoys of the owners' key, to owners only; test_delegated.py",
    "delegated/hello": "sizes and a minimum, to the helper",
    "delegated/map": "which tokens matched, on purpose",
    "delegated/part": "an owner's part of the owners' key, to owners only",
    "delegated/tokens": "hashes that the helper compares on purpose; test_delegated.py",
    "delegated/verdict": "whether there are enough matches, on purpose",
    "hidden/attempt": "a number that is always 0 unless bins failed; public",
    "hidden/hello": "public sizes and a role, and a nonce",
    "linkage/counts": "how many rows are behind each matched item, on purpose; test_linkage.py",
    "linkage/rows": "numbers by first occurrence, on purpose; test_linkage.py",
    "linkage/vote": "whether there are enough people, on purpose",
    "matching/answer": "test_malicious.py tests that it is uniform",
    "matching/attempt": "a number that is always 0 unless the store failed; public",
    "matching/challenge": "random; test_malicious.py tests that it is fresh",
    "matching/ends": "the last bits of tags sent whole, on purpose; test_buckets.py",
    "matching/hello": "a nonce, a size, a role, finished buckets, a hash of parameters and a commitment; test_buckets.py",
    "matching/hint": "test_oprf.py tests that it is uniform",
    "matching/hint-key": "a random key; public",
    "matching/masked": "test_matching.py tests that it is uniform",
    "matching/points": "as ot/points, which is looked at",
    "matching/public": "a Diffie-Hellman key",
    "matching/rows": "which tags matched, on purpose",
    "matching/tags": "hashes, sorted, which the receiver compares on purpose; test_matching.py",
    "matching/trees": "as ot/trees, which is looked at",
    "measure/minimum": "a minimum, on purpose",
    "star/agreed": "a hash of the matches under a key of the owners; test_star.py",
    "star/answer": "a store of hashes, as random as what it holds; test_star.py",
    "star/answer-key": "a random key; public",
    "star/confirm": "a hash that shows the same keys; test_star.py",
    "star/parts": "random keys, to owners only",
    "star/share": "names a key; nothing is sent under it",
    "star/size": "a size and a minimum",
    "star/verdict": "whether there are enough matches, on purpose",
    "tokens/blinded": "group elements; test_tokens.py tests that they are random",
    "tokens/evaluated": "group elements and a proof; test_tokens.py",
    "tokens/hello": "a nonce, a size, a role and a digest",
    "tokens/key": "a public key and public bounds",
    "tokens/rows": "which tokens matched, on purpose",
    "tokens/set": "hashes that the client compares on purpose; test_tokens.py",
    "tokens/vote": "whether there are enough matches, on purpose",
    "matching/upper": "upper bits of sorted tags, which are revealed on purpose; test_matching.py",
    "matching/vote": "whether there are enough matches, on purpose",
    "ot/hello": "a nonce and a Diffie-Hellman key, drawn before there is a secret",
    "psi/hello": "public sizes and roles",
    "psi/order": "an order, tested in test_psi.py",
    "psi/points": "group elements, tested in test_psi.py",
    "psi/tags": "hashes of group elements, in an order tested in test_psi.py",
    "psi/vote": "whether there are enough matches, on purpose",
    "sorting/order": "opens outcomes, on purpose; that they do not depend on the keys is shown in test_sorting.py",
    "verified/coin": "a fresh key",
}
"""Tags that are not looked at, and why."""
EXEMPT |= {
    tag: f"'{reveal.name}' is told on purpose; test_disclosure_transcripts.py"
    for reveal in all_reveals()
    for tag in reveal.tags
    if tag not in EXEMPT.keys() | MESSAGES_ALONE.keys()
}
EXEMPT |= {
    tag: f"{what}; no job sends it"
    for tag, what in FOR_NO_JOB.items()
    if tag not in EXEMPT.keys() | MESSAGES_ALONE.keys()
}


def transcripts(name: str, case: Case, patch: pytest.MonkeyPatch) -> list[Run]:
    """The runs on all secrets.  Their masks are independent of each other, so that their statistics are."""
    if name != "base transfers":
        patch.setattr("mpc.ot.products.set_up", cheap_set_up)
    runs = []
    for which in SECRETS:
        fix_keys(patch, "0" if case.same_keys else str(which))
        runs.append(case.play(which))
    return runs


def check(case: Case, runs: list[Run]) -> Streams:
    """Shape, uniformity and sameness; returns what was seen with the first secret of tags of which that is enough."""
    assert all(run.shape() == runs[0].shape() for run in runs), "the shape depends on the secret"
    checks, seen = Checks(), [streams(run, case, EXEMPT) for run in runs]
    for each in seen:
        check_uniform(checks, case, each)
    for each in seen[1:]:
        check_alike(checks, case, seen[0], each)
    tags_seen = enough(seen[0])
    return {key: sent for key, sent in seen[0].items() if key[0] in tags_seen}


@cache
def looked_at(name: str) -> Streams:
    """What a case sends under the tags of which it sends enough."""
    with pytest.MonkeyPatch.context() as patch:
        return check(CASES[name], transcripts(name, CASES[name], patch))


@pytest.mark.parametrize("name", CASES)
def test_all_messages_are_uniform_and_of_one_shape_whatever_the_secrets(name):
    looked_at(name)


# --- nothing is forgotten ---


def known_tags() -> set[str]:
    """Every tag that the protocols name."""
    files = [
        path
        for package in ("mpc", "vertical")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != ROOT / "mpc/messages.py"
    ]
    return {tag for path in files for tag in tags(path.read_text(), str(path.relative_to(ROOT)))}


def test_every_tag_is_looked_at_or_exempt_for_a_reason():
    known, seen = known_tags(), {tag for name in CASES for tag, _ in looked_at(name)}
    missing = forgotten(known, seen, EXEMPT)
    assert not missing, f"nobody looks at what is sent as {', '.join(sorted(missing))}"
    assert not seen & EXEMPT.keys()
    assert seen == OPENED.keys() | MESSAGES_ALONE.keys()
    assert not OPENED.keys() & MESSAGES_ALONE.keys()
    assert seen | EXEMPT.keys() <= known
    assert len(known) > 40


def test_a_new_tag_would_be_missed():
    new = tags('send_words(channel, peer, "products/new", words)')
    assert forgotten(known_tags() | new, known_tags(), EXEMPT) == {"products/new"}
    assert tags('NEW_TAG = "new/tag"\nsession.exchange(NEW_TAG, words)') == {"new/tag"}
    assert tags("def f(tag): session.open_words(tag, x)\nf('a/b')") == {"a/b"}
    for line in (
        'channel.send(to, f"new/{i}", kind, body)',
        "session.open_words(made(), x)",
        "recv_words(c, p, NEW, 1)",
    ):
        with pytest.raises(AssertionError, match=r"source, line 1: the tag of '.*' is not written out"):
            tags(line)
    assert tags("levels.send(bits)") == set()


# --- the statistics notice ---

Leak = Callable[[Session, list[np.ndarray], list[np.ndarray]], None]


def leaking(leak: Leak, mask_bits: int = 64) -> Case:
    """leak(session, share of the secret, share of a uniform mask)."""

    def run(which: int) -> Run:
        x = secret(which, (3000,), *ENDS).astype(np.int64).view(np.uint64)
        mask = np.random.default_rng(which).integers(0, 2**mask_bits, x.shape, dtype=np.uint64)
        shares, masks = shared(x), split(mask, 2, 10 + which)
        return play(2, lambda s: leak(s, shares[s.me], masks[s.me]))

    return Case(run)


def sound(s: Session, x: np.ndarray, r: np.ndarray) -> None:
    s.open_words("products/open", x + r)


def one_mask_for_two_secrets(s: Session, x: np.ndarray, r: np.ndarray) -> None:
    """Under two tags, so that each alone is uniform."""
    s.open_words("products/open", x + r)
    s.open_words("truncation/open", x * np.uint64(3) + r)


def one_mask_for_all_words(s: Session, x: np.ndarray, r: np.ndarray) -> None:
    s.open_words("products/open", np.repeat(r[::2], 2) + x)


def one_word_in_sixteen_without_a_mask(s: Session, x: np.ndarray, r: np.ndarray) -> None:
    s.open_words("products/open", np.where(np.arange(x.size) % 16, x + r, x))


def a_share_for_one_receiver(s: Session, x: np.ndarray, r: np.ndarray) -> None:
    """Who gets it has another share, and learns the secret."""
    if s.me == 0:
        send_words(s.channel, s.parties[1], "shuffle/mask", x)
    else:
        recv_words(s.channel, s.parties[0], "shuffle/mask", x.shape, x.dtype)


def a_size_that_tells(s: Session, x: np.ndarray, r: np.ndarray) -> None:
    signs = s.open_words("products/square", x) >> np.uint64(63)
    s.open_words("products/open", (x + r)[int(signs.any()) :])


@pytest.mark.parametrize("tag", sorted({**OPENED, **MESSAGES_ALONE}))
def test_a_bit_with_a_tendency_is_noticed_under_every_tag(tag):
    """The lowest bit of a word is 1 in a quarter of all words; every second row of an order stays where it was."""
    name = next(name for name in CASES if any(of == tag for of, _ in looked_at(name)))
    case, rng = CASES[name], np.random.default_rng(3)
    for key, sent in looked_at(name).items():
        if key[0] == tag and sum(words.nbytes for words in sent) >= ENOUGH:
            if tag in case.orders:
                biased = [np.where(np.arange(len(order)) % 2, np.arange(len(order)), order) for order in sent]
            else:
                biased = [words & ~rng.integers(0, 2, words.shape, dtype=words.dtype) for words in sent]
            with pytest.raises(AssertionError, match=f"'{tag}' {key[1]}.*: chi-square"):
                check_uniform(Checks(), case, {key: biased})


def outcome(case: Case, patch: pytest.MonkeyPatch) -> Streams:
    return check(case, transcripts("leak", case, patch))


def test_a_uniform_mask_passes(monkeypatch):
    assert {tag for tag, _ in outcome(leaking(sound), monkeypatch)} == {"products/open"}


@pytest.mark.parametrize(
    ("leak", "mask_bits", "why"),
    [
        (sound, 63, "'products/open' opened: chi-square"),
        (sound, 0, "'products/open' opened: chi-square"),
        (one_mask_for_two_secrets, 64, "'products/open' and 'truncation/open' .*, difference: chi-square"),
        (one_mask_for_all_words, 64, "'products/open' .*: chi-square"),
        (one_word_in_sixteen_without_a_mask, 64, "'products/open' .*: chi-square"),
        (a_share_for_one_receiver, 64, "'shuffle/mask' a to b: chi-square"),
        (a_size_that_tells, 64, "the shape depends on the secret"),
    ],
)
def test_a_leak_is_noticed(leak, mask_bits, why, monkeypatch):
    with pytest.raises(AssertionError, match=why):
        outcome(leaking(leak, mask_bits), monkeypatch)


@pytest.mark.parametrize(("mask_bits", "leaks"), [(64, False), (63, True)])
def test_two_secrets_that_look_different_are_noticed(mask_bits, leaks, monkeypatch):
    case = leaking(sound, mask_bits)
    zeros, ends, _ = (streams(run, case, EXEMPT) for run in transcripts("leak", case, monkeypatch))
    if leaks:
        with pytest.raises(AssertionError, match="opened, two secrets: chi-square"):
            check_alike(Checks(), case, zeros, ends)
    else:
        check_alike(Checks(), case, zeros, ends)


def test_a_message_whose_masked_bits_are_not_all_that_it_has_is_noticed(monkeypatch):
    """A case may say that few bits of a word are used; then the others must be zero."""
    case = replace(leaking(sound), low_bits={"products/open": 4})
    with pytest.raises(AssertionError):
        outcome(case, monkeypatch)


def test_orders_that_are_not_uniform_are_noticed():
    rng = np.random.default_rng(1)
    case, way = Case(lambda _: Run(), orders={"o": 256}), ("o", "a to b")
    drawn = [rng.permutation(256).astype(np.uint32) for _ in range(80)]
    check_uniform(Checks(), case, {way: drawn})
    start = np.arange(256, dtype=np.uint32)
    for orders in ([start] * 80, [np.roll(start, int(k)) for k in rng.integers(0, 256, 80)]):
        with pytest.raises(AssertionError, match="chi-square"):
            check_uniform(Checks(), case, {way: orders})
    near = [np.argsort(start // 16 + rng.random(256)) if i % 2 else order for i, order in enumerate(drawn)]
    with pytest.raises(AssertionError, match="chi-square"):  # half of them only move rows within a sixteenth
        check_uniform(Checks(), case, {way: near})


def test_together_the_tests_hardly_ever_raise_a_false_alarm():
    assert FALSE_ALARM * MOST_TESTS * len(CASES) < 1e-6
