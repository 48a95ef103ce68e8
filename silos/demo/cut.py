"""Cut the public credit data into what a lender and a platform would hold.

    python -m silos.demo.cut SOURCE.parquet

SOURCE is "Default of Credit Card Clients" (UCI 350) as Parquet with its original column names and the target as `y`.  The
rows have no identifiers, so each gets a made-up e-mail address derived from its number; the lender keeps 26,000 of the
30,000 rows and the platform 25,000, drawn independently and put into orders of their own.  The platform writes some
addresses in capitals or with blanks around them, as people do.  Nothing else is changed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
LENDER_COLUMNS = ["LIMIT_BAL", "SEX", "AGE", "EDUCATION", "MARRIAGE", "PAY_0", "PAY_2"]
DOMAINS = ("example.com", "example.org", "example.net")


def _number(label: str, row: int) -> int:
    """A stable number that looks random: the same rows are drawn wherever this runs."""
    return int.from_bytes(hashlib.sha256(f"accord-demo/{label}/{row}".encode()).digest()[:8], "big")


def _email(row: int) -> str:
    number = _number("email", row)
    return f"customer.{number % 10**10:010d}@{DOMAINS[number % len(DOMAINS)]}"


def _as_typed(row: int, email: str) -> str:
    style = _number("style", row) % 10
    return email.upper() if style == 0 else f" {email} " if style == 1 else email


def _pick(label: str, n_rows: int, keep: int) -> np.ndarray:
    """`keep` row numbers in an order that depends on the label only."""
    return np.argsort([_number(label, row) for row in range(n_rows)], kind="stable")[:keep]


def main(source: str) -> None:
    """Write lender.parquet and platform.parquet beside this file."""
    table = pq.read_table(source)
    platform_columns = [c for c in table.column_names if c not in {*LENDER_COLUMNS, "y"}]
    emails = [_email(row) for row in range(table.num_rows)]
    if len(set(emails)) != len(emails):
        raise SystemExit("two rows got the same address")
    typed = [_as_typed(row, email) for row, email in enumerate(emails)]

    lender = table.select([*LENDER_COLUMNS, "y"]).rename_columns([*LENDER_COLUMNS, "default"])
    platform = table.select(platform_columns)
    for name, part, addresses, keep in (("lender", lender, emails, 26_000), ("platform", platform, typed, 25_000)):
        rows = pa.array(_pick(name, table.num_rows, keep))
        whole = part.add_column(0, "email", pa.array(addresses)).replace_schema_metadata(None)
        pq.write_table(whole.take(rows), HERE / f"{name}.parquet", compression="zstd", compression_level=19)


if __name__ == "__main__":
    main(sys.argv[1])
