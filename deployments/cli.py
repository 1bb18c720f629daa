"""The command `causeway`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from connectors.errors import CausewayError, EstateError

# Every command imports what it needs by itself: `causeway status` must not wait for Prefect's import.

_HOME = ".causeway"
_Handler = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 1 with a message on standard error when not."""
    asked = _parser().parse_args(arguments)
    handler: _Handler = asked.handler
    try:
        return handler(asked)
    except CausewayError as error:
        print(f"causeway: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("causeway: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causeway", description="Hybrid-cloud work as Prefect flows over one estate file."
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("CAUSEWAY_HOME", _HOME)),
        help=f"folder of the embedded estate (CAUSEWAY_HOME, else {_HOME})",
    )
    parser.add_argument(
        "--estate",
        type=Path,
        default=os.environ.get("CAUSEWAY_ESTATE"),
        help="estate file (CAUSEWAY_ESTATE, else estate.yaml in the home folder)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _embedded_commands(commands)
    _lake_commands(commands)
    _estate_commands(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, handler: _Handler, text: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text)
    made.set_defaults(handler=handler)
    return made


def _embedded_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _command(commands, "up", _up, "start the embedded estate, or mend it")
    status = _command(commands, "status", _status, "say what runs")
    status.add_argument("--json", action="store_true", help="print JSON")
    down = _command(commands, "down", _down, "stop the embedded estate; its data stays")
    down.add_argument("--delete-data", action="store_true", help="delete all its data too")
    _command(commands, "env", _env, 'print shell variables: eval "$(causeway env)"')


def _lake_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ingest = _command(commands, "ingest", _ingest, "load tables into the lake")
    ingest.add_argument("tables", nargs="+", metavar="TABLE")
    ingest.add_argument("--start", help="first value of the cursor column")
    ingest.add_argument("--end", help="value of the cursor column to stop before")
    ingest.add_argument("--key", help="name under which the batch is committed at most once")
    ingest.add_argument("--full", action="store_true", help="read everything again, also of increments")
    ingest.add_argument("--dry-run", action="store_true", help="only show what would be done")
    backfill = _command(commands, "backfill", _backfill, "load a past slice of a table again")
    backfill.add_argument("table", metavar="TABLE")
    backfill.add_argument("start", help="first value of the cursor column")
    backfill.add_argument("end", help="value of the cursor column to stop before")
    backfill.add_argument("--window", help="length of each load, such as 1d")
    backfill.add_argument("--dry-run", action="store_true", help="only show what would be done")
    tables = _command(commands, "tables", _tables, "show every table: rows, bytes, freshness, quality, owner, class")
    tables.add_argument("--json", action="store_true", help="print JSON")
    replicate = _command(commands, "replicate", _replicate, "follow every change of a source's tables")
    replicate.add_argument("source", metavar="SOURCE", help="a source of kind changes")
    replicate.add_argument("--for", dest="duration", metavar="TIME", help="go on for this long, such as 10m")
    replicate.add_argument("--resync", action="store_true", help="read all tables whole again")
    replicate.add_argument("--dry-run", action="store_true", help="only show what the database keeps for us")
    maintain = _command(commands, "maintain", _maintain, "compact files, expire snapshots, delete what nothing names")
    maintain.add_argument("tables", nargs="*", metavar="TABLE", help="compact only these")
    maintain.add_argument("--dry-run", action="store_true", help="only show what would be done")
    sql = _command(commands, "sql", _sql, "answer a SELECT over lake.<table> and ops.<table>")
    sql.add_argument("query", help="the SELECT, or - to read it from standard input")
    sql.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table", help="of the answer")
    sql.add_argument("--output", type=Path, help="file to write; needed for parquet")
    sql.add_argument("--max-rows", type=int, default=100, help="rows of a table that are shown (100)")
    pinned = sql.add_mutually_exclusive_group()
    pinned.add_argument("--version", type=int, help="snapshot to read")
    pinned.add_argument("--at", type=datetime.fromisoformat, help="time to read as of, ISO 8601")


def _estate_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = _command(commands, "check", _check, "check an estate file and name every mistake")
    check.add_argument("file", type=Path, nargs="?", help="the file; without it the estate in use")
    _command(commands, "schema", _schema, "print the JSON schema of estate files, for editors")
    probe = _command(commands, "probe", _probe, "find out what the sites' object stores really do")
    probe.add_argument("sites", nargs="*", metavar="SITE", help="all sites without one")


def _estate_path(asked: argparse.Namespace) -> str:
    return str(Path(asked.estate or asked.home / "estate.yaml").resolve())


def _use_embedded_server(asked: argparse.Namespace) -> None:
    """Show runs in the embedded Prefect server, unless the user's environment names another."""
    if "PREFECT_API_URL" in os.environ or asked.estate:
        return
    for name, value in variables(asked.home).items():
        os.environ.setdefault(name, value)


def variables(home: Path) -> dict[str, str]:
    """Return the shell variables of an embedded estate; raises EstateError where there is none."""
    file = home / "env"
    if not file.exists():
        raise EstateError(
            "embedded estate", "find", str(home), "there is none in this folder",
            "Run `causeway up`, or name another folder with --home.",
        )  # fmt: skip
    pairs = (
        line.removeprefix("export ").partition("=")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("export ")
    )
    return {name: value.strip("'\"") for name, _, value in pairs}


# --- The embedded estate -------------------------------------------------------------------------


def _up(asked: argparse.Namespace) -> int:
    from deployments.embedded import Home, up

    status = up(Home(asked.home.resolve()), progress=_say)
    ui = next((one.url for one in status.services if one.name == "prefect"), None)
    _say(f"Prefect UI  {ui}")
    _say(f"Estate      {asked.home.resolve() / 'estate.yaml'}")
    return 0


def _status(asked: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from deployments.embedded import Home, status

    found = status(Home(asked.home.resolve()))
    if asked.json:
        print(json.dumps([asdict(one) for one in found.services], indent=2, default=str))
    else:
        for one in found.services:
            print(f"{one.name:15} {one.state:10} {one.pid or '-':>8}  {one.url or ''}")
    return 0 if found.healthy else 1


def _down(asked: argparse.Namespace) -> int:
    from deployments.embedded import Home, down, remove

    home = Home(asked.home.resolve())
    (remove if asked.delete_data else down)(home, progress=_say)
    return 0


def _env(asked: argparse.Namespace) -> int:
    for name, value in variables(asked.home).items():
        print(f"export {name}='{value}'")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


# --- The lake ------------------------------------------------------------------------------------


def _ingest(asked: argparse.Namespace) -> int:
    _use_embedded_server(asked)
    from flows.ingest import ingest

    for table in asked.tables:
        report = ingest(
            _estate_path(asked),
            table,
            start=asked.start,
            end=asked.end,
            load_key=asked.key,
            full=asked.full,
            dry_run=asked.dry_run,
        )
        _say(f"{table}: {report.status}, {report.rows:,} rows in {report.seconds:.1f} s")
    return 0


def _backfill(asked: argparse.Namespace) -> int:
    _use_embedded_server(asked)
    from flows.ingest import backfill

    reports = backfill(_estate_path(asked), asked.table, asked.start, asked.end, asked.window, dry_run=asked.dry_run)
    for report in reports:
        _say(f"{report.table}: {report.status}, {report.rows:,} rows, key {report.load_key}")
    return 0


def _tables(asked: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from connectors.estate import load_estate
    from datalake.session import open_lake
    from datalake.tables import table_statuses
    from deployments.printing import print_rows
    from flows.watch import row_of

    estate = load_estate(_estate_path(asked))
    with open_lake(estate) as lake:
        found = table_statuses(lake, estate)
    if asked.json:
        print(json.dumps([asdict(one) for one in found], indent=2, default=str))
    else:
        print_rows([row_of(one) for one in found])
    return 1 if any(one.late_by is not None for one in found) else 0


def _replicate(asked: argparse.Namespace) -> int:
    _use_embedded_server(asked)
    from flows.replicate import replicate

    done = replicate(_estate_path(asked), asked.source, asked.duration, asked.resync, asked.dry_run)
    whole = f", {', '.join(done.snapshots)} read whole" if done.snapshots else ""
    _say(f"{done.source}: {done.changes:,} changes in {done.commits} commits{whole}")
    _say(f"{done.source}: the database keeps {done.held_back / 1e6:,.1f} MB of log for us")
    return 0


def _maintain(asked: argparse.Namespace) -> int:
    _use_embedded_server(asked)
    from flows.maintain import maintain

    for one in maintain(_estate_path(asked), asked.tables or None, dry_run=asked.dry_run).actions:
        files = f", {one.files_before} files became {one.files_after}" if one.files_before else ""
        remark = f" ({one.reason})" if one.reason else ""
        _say(f"{one.action} {one.table_name or ''}: {one.removed:,} removed{files} in {one.seconds:.1f} s{remark}")
    return 0


def _sql(asked: argparse.Namespace) -> int:
    from connectors.estate import load_estate
    from datalake.query import query
    from deployments.printing import write_answer

    text = sys.stdin.read() if asked.query == "-" else asked.query
    with query(load_estate(_estate_path(asked)), text, version=asked.version, at=asked.at) as answer:
        write_answer(answer.reader, asked.format, asked.output, asked.max_rows)
    return 0


# --- The estate ----------------------------------------------------------------------------------


def _check(asked: argparse.Namespace) -> int:
    from connectors.estate import load_estate

    path = asked.file or _estate_path(asked)
    estate = load_estate(path)
    counts = f"{len(estate.sites)} sites, {len(estate.applications)} applications, {len(estate.tables)} tables"
    print(f"{path}: ok ({counts})")
    return 0


def _schema(asked: argparse.Namespace) -> int:
    import json

    from connectors.estate import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def _probe(asked: argparse.Namespace) -> int:
    from connectors.estate import load_estate
    from connectors.objects import objects

    estate = load_estate(_estate_path(asked))
    for site in asked.sites or [name for name, one in estate.sites.items() if one.objects]:
        found = objects(estate.objects(site)).probe(estate.lake.bucket)
        for name, present in vars(found).items():
            print(f"{site:12} {name:22} {'yes' if present else 'LOST'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
