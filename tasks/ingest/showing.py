"""What a user sees of a load: the artifacts of its plan, its result and its quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from connectors.errors import NotFoundError
from connectors.estate import DocumentsSource, Estate, Table
from connectors.sources import documents, source
from datalake.evidence import LoadRecord, QualityRecord
from datalake.session import open_lake
from tasks.ingest.plan import LoadPlan
from tasks.ingest.steps import declared_table, expectations_of


def show_plan(estate: Estate, folder: Path, plan: LoadPlan) -> int | None:
    """Leave an artifact that says what a load would do; return the estimate of its rows. Changes nothing."""
    declared = declared_table(estate, plan.table)
    taken, estimate = _source_words(estate, folder, plan)
    what = {
        "append": "add the batch",
        "replace": "put the batch in the place of the same slice, or of all rows",
        "merge": f"update by ({', '.join(declared.key)}), add what is new",
    }[plan.mode] + _deletions(declared)
    lines = [
        f"### Plan for `{plan.target}`: nothing was done",
        "",
        "| | |",
        "|---|---|",
        f"| take | {taken} |",
        f"| slice | {_slice_words(plan)} |",
        f"| rows | {'unknown' if estimate is None else f'about {estimate:,}'} |",
        f"| do | {what} |",
        f"| table now | {_table_words(estate, plan)} |",
        f"| checks | {len(expectations_of(declared))} expectations |",
        f"| key | `{plan.load_key}` |",
        f"| cost | {_cost_words(estate, plan)} |",
    ]
    create_markdown_artifact("\n".join(lines), key=f"plan-{_slug(plan.target)}")
    get_run_logger().info("dry run: %s; %s; %s", taken, what, _slice_words(plan))
    return estimate


def _source_words(estate: Estate, folder: Path, plan: LoadPlan) -> tuple[str, int | None]:
    if isinstance(estate.source(plan.source), DocumentsSource):
        return documents(estate, plan.source, folder).describe(), None
    found = source(estate, plan.source, estate.table(plan.table).columns, folder)
    return found.describe(), found.estimate()


def _table_words(estate: Estate, plan: LoadPlan) -> str:
    try:
        with open_lake(estate) as lake:
            if not lake.has_table(plan.target):
                return "does not exist yet"
            return f"{lake.value(f'SELECT count(*) FROM {plan.target}'):,} rows"
    except NotFoundError:
        return "does not exist yet, nor does the lake"


def _cost_words(estate: Estate, plan: LoadPlan) -> str:
    site = getattr(estate.source(plan.source), "site", None)
    if site is None or site == estate.lake.site:
        return "no traffic between sites"
    prices = estate.site(site).prices
    if prices is None:
        return f"traffic from {site} to {estate.lake.site}, no price card"
    return f"traffic from {site} to {estate.lake.site}: {prices.egress_gib} {prices.currency} a GiB"


def _deletions(declared: Table) -> str:
    words = ""
    if declared.deleted_when:
        words += f", delete where {declared.deleted_when}"
    if declared.delete_absent:
        words += ", delete what the source no longer has"
    return words


def _slice_words(plan: LoadPlan) -> str:
    part = plan.part
    if plan.progress is not None:
        seen = plan.progress.mark
        return f"{part.cursor} from {part.start} on, of which {seen} was seen" if part.cursor else "all rows, to begin"
    return f"{part.start or '…'} ≤ {part.cursor} < {part.end or '…'}" if part.cursor else "all rows"


def show_load(plan: LoadPlan, record: LoadRecord, version: int | None, remarks: Sequence[str]) -> None:
    """Leave an artifact that says what was loaded, from where and how fast, or why it was set aside."""
    speed = record.rows / record.stage_seconds if record.stage_seconds else 0.0
    lines = [
        f"### {plan.target}: {record.status}",
        "",
        "| | |",
        "|---|---|",
        f"| rows | {record.rows:,} read, {record.rows_written:,} written, {record.rows_deleted:,} deleted |",
        f"| size | {record.bytes / 1e6:,.1f} MB in {record.files} files |",
        f"| from | {plan.source} ({_slice_words(plan)}) |",
        f"| mode | {plan.mode} |",
        f"| speed | {speed:,.0f} rows/s |",
        f"| time | staged in {record.stage_seconds:.1f} s, checked in {record.check_seconds:.1f} s |",
        f"| snapshot | {version if version is not None else 'none: nothing became visible'} |",
        f"| load | `{record.load_id}` |",
        f"| key | `{record.load_key}` |",
    ]
    if remarks:
        lines += ["", *(f"- {remark}" for remark in remarks)]
    create_markdown_artifact("\n".join(lines), key=f"load-{_slug(plan.target)}", description=f"Load of {plan.target}")


def show_quality(plan: LoadPlan, quality: Sequence[QualityRecord]) -> None:
    """Leave an artifact with a row for each expectation."""
    if not quality:
        return
    create_table_artifact(
        [
            {
                "expectation": one.expectation,
                "result": "ok" if one.success else one.level,
                "unexpected": one.unexpected,
                "rows": one.rows,
                "mostly": one.mostly,
            }
            for one in quality
        ],
        key=f"quality-{_slug(plan.target)}",
        description=f"Expectations of {plan.table}",
    )


def _slug(name: str) -> str:
    return name.replace("_", "-")
