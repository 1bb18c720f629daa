"""The table of all entrants and the verdict on each target."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.entrants import Entrant
from benchmarks.rounds import Result

_COPY, _PLAIN, _CHECKED = "copy", "causeway", "causeway-checked"
_LIMITS = {_PLAIN: 1.15, _CHECKED: 1.4}
_MEMORY_LIMIT = 300.0  # MB (10^6 bytes)
_SAME_MEMORY = 1.05  # two runs of one program differ by some MB

Wall = Callable[[Result], float | None]


def process_seconds(result: Result) -> float | None:
    """Return the time of the whole process, its imports included."""
    return result.usage.wall_seconds


def flow_seconds(result: Result) -> float | None:
    """Return the time from the call of Causeway's flow to its return."""
    return result.flow_seconds


@dataclass(frozen=True)
class Scale:
    """All results at one scale of TPC-H."""

    scale: float
    rows: int
    results: tuple[Result, ...]

    def of(self, name: str) -> list[Result]:
        """Return one entrant's results in the order of rounds."""
        return [one for one in self.results if one.name == name]


def ratio(scale: Scale, name: str, base: str, wall: Wall) -> float | None:
    """Return how many times as long as `base` an entrant took: the median of the rounds' own ratios."""
    against = {one.round: one for one in _sound(scale.of(base))}
    ratios = [
        mine / against[one.round].usage.wall_seconds
        for one in _sound(scale.of(name))
        if one.round in against and (mine := wall(one)) is not None
    ]
    return median(ratios) if ratios else None


def table(scale: Scale, entrants: Sequence[Entrant]) -> list[list[str]]:
    """Return the header and a row for each entrant: medians of the rounds, maxima of memory."""
    header = [
        "entrant", "rows/s", "process s", "x COPY", "flow s", "x COPY", "client CPU s",
        "postgres CPU s", "S3 CPU s", "Prefect CPU s", "largest process MB", "process tree MB", "result",
    ]  # fmt: skip
    return [header, *(_row(scale, one) for one in entrants if scale.of(one.name))]


def targets(scales: Sequence[Scale], entrants: Sequence[Entrant]) -> list[str]:
    """Return a line for each target, with what was reached; the first scale is the one that is timed."""
    first = scales[0]
    found: list[str] = []
    for name, limit in _LIMITS.items():
        for what, wall in (("flow", flow_seconds), ("process", process_seconds)):
            found += _judged(f"{name} ({what})", ratio(first, name, _COPY, wall), limit, "x COPY")
    peers = [one.name for one in entrants if one.kind == "peer"]
    for name in _LIMITS:
        for peer in peers:
            for what, wall in (("flow", flow_seconds), ("process", process_seconds)):
                found += _judged(f"{name} ({what})", ratio(first, name, peer, wall), 1.0, f"x {peer}")
    for name in _LIMITS:
        for scale in scales:
            where = f"{name} at scale {scale.scale:g}"
            found += _judged(f"{where}, process tree", _peak_mb(scale, name), _MEMORY_LIMIT, "MB")
        for scale in scales[1:]:
            before, after = _peak_mb(first, name), _peak_mb(scale, name)
            if before and after:
                what = f"{name}, memory at scale {scale.scale:g} against {first.scale:g}"
                found += _judged(what, after / before, _SAME_MEMORY, "times")
    bad = sorted({one.name for scale in scales for one in scale.results if one.verdict in ("WRONG", "FAILED")})
    return [*found, *(f"MISSED  {name}: its result is not that of the source" for name in bad)]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Return a table aligned for a terminal."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_markdown(machine: str, scales: Sequence[Scale], entrants: Sequence[Entrant], remarks: Iterable[str]) -> str:
    """Return everything as a Markdown page."""
    lines = [f"# lineitem from PostgreSQL into a lake on S3\n\n{machine}\n"]
    for scale in scales:
        header, *rows = table(scale, entrants)
        lines.append(f"## Scale {scale.scale:g}: {scale.rows:,} rows\n")
        lines.append(_markdown_row(header))
        lines.append(_markdown_row(["---", *("---:" for _ in header[1:])]))
        lines += [*map(_markdown_row, rows), ""]
    lines.append("## Targets\n")
    lines += [f"- {one}" for one in targets(scales, entrants)]
    lines += ["", *remarks, ""]
    return "\n".join(lines)


def as_json(machine: str, scales: Sequence[Scale], entrants: Sequence[Entrant]) -> str:
    """Return every single run, for other programs."""
    found = {
        "machine": machine,
        "scales": [asdict(scale) for scale in scales],
        "targets": targets(scales, entrants),
    }
    return json.dumps(found, indent=2)


def _row(scale: Scale, entrant: Entrant) -> list[str]:
    runs, name = scale.of(entrant.name), entrant.name
    sound = _sound(runs)
    verdicts = sorted({one.verdict for one in runs})
    if not sound:
        return [entrant.title, *("-" for _ in range(11)), "/".join(verdicts)]
    wall = median(one.usage.wall_seconds for one in sound)
    flows = [one.flow_seconds for one in sound if one.flow_seconds is not None]
    servers = sound[0].usage.server_cpu_seconds
    cpu = {key: median(one.usage.server_cpu_seconds[key] for one in sound) for key in servers}
    return [
        entrant.title,
        f"{scale.rows / wall:,.0f}",
        f"{wall:.1f}",
        _number(ratio(scale, name, _COPY, process_seconds), 2),
        _number(median(flows) if flows else None, 1),
        _number(ratio(scale, name, _COPY, flow_seconds), 2),
        f"{median(one.usage.cpu_seconds for one in sound):.1f}",
        *(_number(cpu.get(key), 1) for key in ("postgres", "s3", "prefect")),
        f"{max(one.usage.largest_bytes for one in sound) / 1e6:,.0f}",
        f"{max(one.usage.tree_bytes for one in sound) / 1e6:,.0f}",
        "/".join(verdicts),
    ]


def _judged(what: str, reached: float | None, limit: float, unit: str) -> list[str]:
    """Return the line of one target, or nothing when it was not measured."""
    if reached is None:
        return []
    word = "met   " if reached <= limit else "MISSED"
    away = abs(reached / limit - 1)
    side = "below" if reached <= limit else "above"
    return [f"{word}  {what}: {reached:.4g} {unit}, target {limit:g}: {away:.0%} {side}"]


def _sound(runs: Sequence[Result]) -> list[Result]:
    return [one for one in runs if one.verdict in ("ok", "-")]


def _peak_mb(scale: Scale, name: str) -> float | None:
    found = [one.usage.tree_bytes / 1e6 for one in _sound(scale.of(name))]
    return max(found) if found else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
