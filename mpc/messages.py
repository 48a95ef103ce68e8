"""Messages that tell their receiver nothing: everything else that travels must be named by a Reveal.

A message is of exactly one of three kinds.

- It is uniform whatever the secrets are, given all that its receiver has: a share, a masked value, a ciphertext, a key.
- It follows from what its receiver knows already: hashes of what all agreed on, nonces, public settings.
- It tells something.  Then the tag that it travels under is in `Reveal.tags` of a declaration, and this list lacks it.

What a tag is for is part of its name, so a value that is opened for another purpose gets another tag.
"""

from __future__ import annotations

from collections.abc import Mapping

UNIFORM: Mapping[str, str] = {
    "compare/bit": "masked bits",
    "compare/join": "masked bits",
    "compare/mask": "a masked word",
    "crypten/common-key": "a fresh key",
    "crypten/next-key": "a fresh key",
    "crypten/open": "a masked value",
    "dealer/correction": "a share",
    "dealer/key": "a fresh key",
    "delegated/decoys": "fresh random words, to owners only",
    "delegated/part": "a part of a fresh key, to owners only",
    "fourier/angle": "a masked angle",
    "fourier/turn": "a masked angle",
    "gram/weights": "masked weights",
    "groups/key": "masked values",
    "groups/mask": "masked values",
    "groups/order": "an order behind a random one",
    "groups/values": "masked values",
    "matching/answer": "a random combination of masks",
    "matching/challenge": "random words",
    "matching/hint": "a store of masked values, of which no owner knows which mean anything",
    "matching/hint-key": "a fresh key",
    "matching/masked": "masked codewords",
    "matching/points": "group elements of fresh scalars",
    "matching/public": "a fresh Diffie-Hellman key",
    "matching/trees": "masked tree nodes",
    "matrix/mask": "a masked matrix",
    "matrix/vector": "a masked vector",
    "ot/choice": "masked choice bits",
    "ot/hello": "a nonce and a fresh Diffie-Hellman key",
    "ot/message": "masked messages",
    "ot/points": "group elements of fresh scalars",
    "ot/trees": "masked tree nodes",
    "products/open": "a masked value",
    "products/square": "a masked value",
    "psi/points": "group elements under a scalar that the receiver lacks",
    "shuffle/mask": "masked rows",
    "sorting/order": "comparisons of rows in an order that nobody knows",
    "star/answer-key": "a fresh key",
    "star/parts": "fresh keys, to owners only",
    "tokens/blinded": "group elements under a scalar that the receiver lacks",
    "tokens/evaluated": "group elements under a key that the receiver lacks, and a proof that they are",
    "truncation/open": "a masked value",
    "verified/check": "shares of zero",
    "verified/coin": "a fresh key",
    "verified/mask": "a masked value",
    "verified/matrix": "a masked matrix",
    "verified/rows": "shares of random words that are used for nothing else",
}
"""Tags of messages that are uniform, and of what."""

KNOWN: Mapping[str, str] = {
    "delegated/agreed": "a hash of the matches, which all owners have",
    "delegated/confirm": "a hash of the key that all owners have",
    "hidden/attempt": "a number that is 0 unless the sender's own bins failed, whatever the other one's rows are",
    "match/kept": "a hash of the matches, which both owners have",
    "matching/attempt": "a number that is 0 unless the sender's own store failed, and a nonce",
    "resuming/kept": "a hash of which attempt all took part in",
    "score/model": "a hash of the job's settings",
    "star/confirm": "a hash of keys that both owners have",
    "tokens/key": "a public key, and bounds that the job's settings give",
    "trees/score": "sizes of a model that all have, and a hash of its revealed structure",
}
"""Tags of messages that follow from what the receiver knows, and from what."""

SILENT: Mapping[str, str] = {**UNIFORM, **KNOWN}
"""All tags that tell nothing."""

FOR_NO_JOB: Mapping[str, str] = {
    "compare/any": "an opening of `mpc.compare.open_any` that was given no tag",
    "compare/reveal": "an opening of `mpc.compare.reveal_negative` that was given no tag",
    "crypten/barrier": "CrypTen's",
    "crypten/broadcast": "CrypTen's",
    "crypten/gather": "CrypTen's",
    "crypten/open-to": "an opening of CrypTen's own `reveal`",
    "crypten/result": "an opening of `mpc.engine.reveal` that was given no tag",
    "crypten/result-to": "an opening of `mpc.engine.reveal_to` that was given no tag",
    "crypten/size": "CrypTen's",
    "star/share": "names a key; nothing is sent under it",
    "stability/quantiles": "whether a quantile of scores is above a point",
}
"""Tags that no declaration names: what is sent under one of them is undeclared, and a job that sends it must not run."""
