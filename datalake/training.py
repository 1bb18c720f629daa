"""Training sets: the rows of a query at one snapshot, split and kept, so that a model can be trained on them again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import BadDataError
from connectors.estate import Estate, load_estate
from connectors.objects import objects
from datalake.evidence import TrainingSetRecord, write
from datalake.holds import hold
from datalake.query import require_reading
from datalake.session import Lake, open_lake
from datalake.translation import lake_errors

if TYPE_CHECKING:
    import pyarrow.dataset

_FOLDER = "training"
_SHARE, _ORDER = "__causeway_share", "__causeway_order"


@dataclass(frozen=True)
class TrainingSet:
    """Rows of a query at a snapshot, as Parquet files that never change."""

    id: str
    """Digest of the query, the snapshot, the split and the seed: the same id, the same rows in the same order."""
    version: int
    sql: str
    rows: Mapping[str, int]
    """Number of rows by split."""
    url: str
    """Below which the files lie: a folder for each split, and manifest.json."""
    estate: Estate

    def dataset(self, split: str = "train") -> pyarrow.dataset.Dataset:
        """Return a split as an Arrow dataset, which reads when it is asked to; raises BadDataError for another name."""
        import pyarrow.dataset
        import pyarrow.fs

        if split not in self.rows:
            raise BadDataError(
                "lake", "read", f"training set {self.id}", f"there is no split '{split}'",
                f"There are: {', '.join(self.rows)}.",
            )  # fmt: skip
        store = self.estate.objects(self.estate.lake.site)
        address = urlsplit(store.url.removeprefix("s3+"))
        files = pyarrow.fs.S3FileSystem(
            access_key=store.access_key.reveal(), secret_key=store.secret_key.reveal(), region=store.region,
            scheme=address.scheme, endpoint_override=address.netloc,
            tls_ca_file_path=str(store.ca_file) if store.ca_file else None,
        )  # fmt: skip
        place = f"{self.url.removeprefix('s3://')}/{split}"
        return pyarrow.dataset.dataset(place, filesystem=files, format="parquet")


def training_set(
    sql: str,
    estate: str | Path,
    *,
    split: Mapping[str, float] | None = None,
    by: Sequence[str] = (),
    seed: int = 0,
    version: int | None = None,
    hold_for: timedelta | None = timedelta(days=365),
) -> TrainingSet:
    """Keep the rows of a SELECT over `lake.TABLE` as a training set, or return the one that was kept before.

    `split` gives the shares by name, which add up to 1 (default: train 0.8, test 0.2). A row's split and its place in
    the shuffled order follow from a digest of the columns `by` (default: all) and the seed, and from nothing else:
    rows of one customer stay together with `by=["customer"]`, and a row stays in its split when others are added. The
    snapshot (default: the newest) is held for `hold_for`. Raises BadDataError for a wrong split, query or column.
    """
    shares = _checked(split or {"train": 0.8, "test": 0.2})
    declared = load_estate(estate)
    with (
        TemporaryDirectory(prefix="causeway-training-") as spill,
        open_lake(declared, version=version, temp_directory=Path(spill)) as lake,
    ):
        require_reading(lake.connection, sql)
        pinned = version if version is not None else lake.version()
        recipe = {
            "sql": sql,
            "version": pinned,
            "split": {name: str(share) for name, share in shares.items()},
            "by": list(by),
            "seed": seed,
        }
        made = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
        url = f"{lake.root}/{_FOLDER}/{made}"
        rows = _kept(declared, url)
        if rows is None:
            rows = _write(lake, sql, pinned, shares, by, seed, url)
            _keep(declared, url, {**recipe, "id": made, "rows": rows})
            _record(declared, recipe, made, rows, hold_for)
    return TrainingSet(made, pinned, sql, rows, url, declared)


def _checked(split: Mapping[str, float]) -> Mapping[str, Decimal]:
    shares = {name: Decimal(str(share)) for name, share in split.items()}
    if sum(shares.values()) != 1 or any(share <= 0 for share in shares.values()):
        raise BadDataError(
            "lake", "split", "a training set", f"the shares are {dict(split)}", "Give positive shares that add up to 1."
        )
    return shares


def _write(
    lake: Lake, sql: str, version: int, shares: Mapping[str, Decimal], by: Sequence[str], seed: int, url: str
) -> dict[str, int]:
    """Write a folder of Parquet files for each split; return their rows."""
    subject = f"row({', '.join(map(quote_identifier, by))})" if by else "found"
    # A digest and not DuckDB's hash: that one may be another in the next release.
    digest = f"md5({quote_literal(f'{seed}:')} || to_json({subject})::VARCHAR)"
    rows, low = {}, Decimal(0)
    with lake_errors("keep a training set of", sql[:80]):
        lake.connection.execute("BEGIN TRANSACTION READ ONLY")
        for name, share in shares.items():
            high = low + share
            shared = f"('0x' || substr({digest}, 1, 8))::UBIGINT / 4294967296.0"
            order = f"md5({quote_literal(f'{seed}:order:')} || to_json(found)::VARCHAR)"
            # The last split takes what rounding would leave.
            upper = "true" if high == 1 else f"{_SHARE} < {high}"
            keyed = f"SELECT *, {shared} AS {_SHARE}, {order} AS {_ORDER} FROM ({sql}) AS found"
            mine = f"{_SHARE} >= {low} AND {upper}"
            found = lake.connection.execute(
                f"COPY (SELECT * EXCLUDE ({_SHARE}, {_ORDER}) FROM ({keyed}) WHERE {mine} ORDER BY {_ORDER}) "
                f"TO {quote_literal(f'{url}/{name}/data.parquet')} (FORMAT parquet)"
            ).fetchone()
            rows[name] = int(found[0]) if found else 0
            low = high
        lake.connection.execute("COMMIT")
    return rows


def _place(estate: Estate, url: str) -> tuple[str, str]:
    """Return bucket and key of a set's manifest."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, f"{key}/manifest.json"


def _kept(estate: Estate, url: str) -> dict[str, int] | None:
    store = objects(estate.objects(estate.lake.site))
    bucket, key = _place(estate, url)
    if store.info(bucket, key) is None:
        return None
    with store.read(bucket, key) as file:
        return {str(name): int(rows) for name, rows in json.load(io.TextIOWrapper(file, "utf-8"))["rows"].items()}


def _keep(estate: Estate, url: str, manifest: dict[str, Any]) -> None:
    """Write the manifest last: where it is, the files are whole. Of two that write it at once both wrote the same."""
    bucket, key = _place(estate, url)
    objects(estate.objects(estate.lake.site)).create(bucket, key, json.dumps(manifest, indent=2).encode())


def _record(
    estate: Estate, recipe: Mapping[str, Any], made: str, rows: Mapping[str, int], hold_for: timedelta | None
) -> None:
    with open_lake(estate, read_only=False) as lake:
        hold(lake, int(recipe["version"]), f"training set {made}", hold_for)
        write(lake, [
            TrainingSetRecord(
                training_set=made, version=int(recipe["version"]), sql=str(recipe["sql"]),
                splits=json.dumps(dict(rows)), made_at=datetime.now(UTC),
            )
        ])  # fmt: skip
