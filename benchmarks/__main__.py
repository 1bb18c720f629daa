"""Run the benchmark and print its table: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.entrants import ENTRANTS, Entrant
from benchmarks.machine import describe
from benchmarks.report import Scale, as_json, as_markdown, as_text, table, targets
from benchmarks.rounds import Result, arena, compete

_REMARKS = (
    "Medians of the rounds, which take all entrants in turn; ratios are medians of the ratios within a round. "
    "Memory is the highest of all rounds.",
    "Memory is resident, in MB of 10^6 bytes: of the largest single process (the kernel's own peak), and of "
    "the client's whole process tree (sampled every 50 ms; pages shared within it count for each process).",
    "'process' is from the start of a program to its end, imports included; 'flow' is from the call of "
    "Causeway's flow to its return. rows/s is of the process. Every result is read again: rows and two sums.",
    "sling writes Parquet with its native writer: its usual one downloads a DuckDB first.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every result is that of the source, whether the targets are met or not."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    machine = describe()
    print(machine, flush=True)
    scales: list[Scale] = []
    with ExitStack() as stack:
        data = options.data or _folder(stack, keep=options.keep)
        for index, scale in enumerate(options.scales):
            chosen = options.only if index == 0 else [one for one in options.only if one.kind == "causeway"]
            scales.append(_at_scale(scale, data, chosen, options.runs if index == 0 else 1))
    for one in scales:
        print(f"\nscale {one.scale:g}: {one.rows:,} rows\n\n{as_text(table(one, options.only))}")
    print("", *_REMARKS, "", *targets(scales, options.only), sep="\n")
    if options.output:
        _write(options.output, machine, scales, options.only)
    return 1 if any(run.verdict in ("WRONG", "FAILED") for one in scales for run in one.results) else 0


def _at_scale(scale: float, data: Path, entrants: Sequence[Entrant], rounds: int) -> Scale:
    results: list[Result] = []
    with_causeway = any(one.kind == "causeway" for one in entrants)
    with arena(scale, data, with_causeway=with_causeway) as held:
        for result in compete(held, entrants, rounds):
            results.append(result)
            print(_progress(result), flush=True)
        return Scale(scale, held.expected.rows, tuple(results))


def _progress(result: Result) -> str:
    usage = result.usage
    flow = f" (flow {result.flow_seconds:.1f} s)" if result.flow_seconds else ""
    line = f"  round {result.round}: {result.name:18} {usage.wall_seconds:7.1f} s{flow}, {result.verdict}"
    return f"{line}\n{usage.errors}" if result.verdict == "FAILED" else line


def _write(path: Path, machine: str, scales: Sequence[Scale], entrants: Sequence[Entrant]) -> None:
    as_data = path.suffix == ".json"
    text = as_json(machine, scales, entrants) if as_data else as_markdown(machine, scales, entrants, _REMARKS)
    path.write_text(text, encoding="utf-8")


def _folder(stack: ExitStack, *, keep: bool) -> Path:
    if not keep:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="causeway-bench-data-")))
    folder = Path(tempfile.mkdtemp(prefix="causeway-bench-data-"))
    print(f"data stays in {folder}", flush=True)
    return folder


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ", ".join(one.name for one in ENTRANTS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--scale", "--scales", dest="scales", type=_scales, default=[1.0], metavar="N[,N...]",
        help="TPC-H scales; at those after the first only causeway runs, once, for its memory (default 1)",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=3, help="rounds (default 3)")
    parser.add_argument(
        "--only", type=_only, default=list(ENTRANTS), metavar="NAME,...",
        help=f"some entrants; copy is always one of them: {names}",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="also write FILE.md or FILE.json")
    parser.add_argument("--data", type=Path, help="folder in which generated data stays and is used again")
    parser.add_argument("--keep", action="store_true", help="do not remove the generated data")
    return parser.parse_args(arguments)


def _scales(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _only(text: str) -> list[Entrant]:
    wanted = {"copy", *text.split(",")}
    unknown = wanted - {one.name for one in ENTRANTS}
    if unknown:
        raise argparse.ArgumentTypeError(f"no such entrant: {', '.join(sorted(unknown))}")
    return [one for one in ENTRANTS if one.name in wanted]


if __name__ == "__main__":
    sys.exit(main())
