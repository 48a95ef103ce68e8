"""Text columns as numbers: TF-IDF and a truncated singular value decomposition, fitted and used by their owner alone.

Nothing here talks to anybody.  A fitted encoder is plain data, for the owner's own part of a model: words, their weights and
the components.  Fitting is deterministic, and an encoder restored from its document gives the very same numbers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]
FORMAT = "accord-text-1"
MAX_TERMS = 1 << 20


@dataclass(frozen=True)
class TextSettings:
    """How text becomes numbers.

    dims: components that are kept.  max_terms: the most frequent words and pairs of words that count.  min_rows: a term in
    fewer training rows does not count.
    """

    dims: int = 128
    max_terms: int = 10_000
    min_rows: int = 5

    def __post_init__(self) -> None:
        if not (1 <= self.dims <= 1024 and 2 <= self.max_terms <= MAX_TERMS and self.min_rows >= 1):
            raise LocalProtocolError("a text encoder has 1 to 1024 dims, 2 terms or more and counts rows from 1")


@dataclass(frozen=True)
class TextEncoder:
    """A fitted encoding of one text column.

    terms: words and pairs of words, in order.  idf: (t,) of each.  components: (k, t) float32, rows of unit length.
    """

    terms: tuple[str, ...] = field(repr=False)
    idf: Floats = field(repr=False)
    components: npt.NDArray[np.float32] = field(repr=False)

    @property
    def dims(self) -> int:
        """Numbers for each text; 0 if the training rows had too few words."""
        return len(self.components)

    @classmethod
    def fit(cls, texts: Column, settings: TextSettings | None = None) -> Self:
        """From the training rows: (n,) text, None for missing.

        Source: Deerwester et al., JASIS 1990 (latent semantic analysis); Halko, Martinsson, Tropp, SIAM Review 2011.
        """
        from sklearn.decomposition import TruncatedSVD  # only an owner of text pays for loading it

        chosen = TextSettings() if settings is None else settings
        rows = _filled(texts)
        vectors = _vectorizer(max_features=chosen.max_terms, min_df=min(chosen.min_rows, max(1, len(rows))))
        try:
            weights = vectors.fit_transform(rows)
        except ValueError:  # no term is in enough rows
            return cls((), np.zeros(0), np.zeros((0, 0), dtype=np.float32))
        terms = tuple(str(term) for term in vectors.get_feature_names_out())
        dims = min(chosen.dims, len(terms) - 1, len(rows) - 1)
        if dims < 1:
            return cls((), np.zeros(0), np.zeros((0, 0), dtype=np.float32))
        found = TruncatedSVD(dims, random_state=0).fit(weights).components_
        return cls(terms, np.asarray(vectors.idf_, dtype=np.float64), found.astype(np.float32))

    def transform(self, texts: Column) -> Floats:
        """(n, dims) of any rows; a missing text, and one without a known word, is all zeros."""
        rows = _filled(texts)
        if not self.dims or not rows:
            return np.zeros((len(rows), self.dims))
        vectors = _vectorizer(vocabulary=dict(zip(self.terms, range(len(self.terms)), strict=True)))
        vectors.idf_ = self.idf
        out = vectors.transform(rows) @ self.components.T.astype(np.float64)
        return np.ascontiguousarray(out, dtype=np.float64)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": FORMAT,
            "terms": list(self.terms),
            "idf": _text_of(self.idf),
            "components": _text_of(self.components),
            "dims": self.dims,
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """What `document` returned.  Raises: LocalProtocolError for anything else."""
        try:
            terms, dims = document["terms"], document["dims"]
            good = document["format"] == FORMAT and type(dims) is int and 0 <= dims <= 1024 and len(terms) <= MAX_TERMS
            if not good or not all(type(term) is str for term in terms) or len(set(terms)) != len(terms):
                raise ValueError("not terms")
            idf = _array_of(document["idf"], np.dtype(np.float64)).astype(np.float64)
            components = _array_of(document["components"], np.dtype(np.float32)).astype(np.float32)
            return cls(tuple(terms), idf.reshape(len(terms)), components.reshape(dims, len(terms)))
        except (KeyError, TypeError, ValueError, binascii.Error) as exc:
            raise LocalProtocolError("this is not a text encoder, or it is damaged") from exc


def _vectorizer(**options: Any) -> Any:
    """Words of two letters and more and pairs of them, without case and accents; a word counts by its logarithm."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), strip_accents="unicode", sublinear_tf=True, **options)


def _filled(texts: Sequence[Any] | Column) -> list[str]:
    return ["" if text is None else str(text) for text in texts]


def _text_of(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()).decode()


def _array_of(text: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    array = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype.newbyteorder("<"))
    if not np.isfinite(array).all():
        raise ValueError("not finite")
    return array
