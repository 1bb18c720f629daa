"""Decodes the messages of PostgreSQL's plugin `pgoutput`, protocol version 1.

Source: PostgreSQL manual, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from connectors.changes import Change, Commit
from connectors.errors import BadDataError


@dataclass(frozen=True)
class _Relation:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


class Decoder:
    """Turns messages into changes and commits; transactions that ended before `after` are left out.

    It remembers the tables that messages refer to by number.
    """

    def __init__(self, after: int = 0) -> None:
        self._relations: dict[int, _Relation] = {}
        self._after = after
        self._skipping = False

    def decode(self, message: bytes) -> Iterator[Change | Commit]:
        """Yield what a message says: nothing, a commit, or one or two changes."""
        kind, body = message[:1], message[1:]
        if kind == b"B":
            self._skipping = struct.unpack_from("!Q", body)[0] < self._after
        elif kind == b"R":
            self._learn(body)
        elif self._skipping:
            return
        elif kind == b"C":
            # flags, the commit's own position, the position after it, time
            yield Commit(struct.unpack_from("!BQQq", body)[2])
        elif kind == b"I":
            relation, (values, unchanged), _ = self._row(body[4:], struct.unpack_from("!I", body)[0])
            yield Change(relation.name, "upsert", values, unchanged)
        elif kind == b"U":
            yield from self._update(body)
        elif kind == b"D":
            relation, (old, _), _ = self._row(body[4:], struct.unpack_from("!I", body)[0])
            yield Change(relation.name, "delete", {name: old[name] for name in relation.key})
        elif kind == b"T":
            count, _ = struct.unpack_from("!IB", body)
            for index in range(count):
                number = struct.unpack_from("!I", body, 5 + 4 * index)[0]
                yield Change(self._relations[number].name, "truncate")

    def _learn(self, body: bytes) -> None:
        number = struct.unpack_from("!I", body)[0]
        schema, at = _text(body, 4)
        table, at = _text(body, at)
        count = struct.unpack_from("!BH", body, at)[1]
        at += 3
        columns, key = [], []
        for _ in range(count):
            is_key = body[at] & 1
            name, at = _text(body, at + 1)
            at += 8  # type and modifier
            columns.append(name)
            if is_key:
                key.append(name)
        self._relations[number] = _Relation(f"{schema}.{table}", tuple(columns), tuple(key))

    def _update(self, body: bytes) -> Iterator[Change]:
        number, at = struct.unpack_from("!I", body)[0], 4
        old: dict[str, str | None] = {}
        whole = body[at : at + 1] == b"O"
        if body[at : at + 1] in (b"K", b"O"):
            _, (old, _), used = self._row(body[at:], number)
            at += used
        relation, (values, unchanged), _ = self._row(body[at:], number)
        if old and any(old[name] != values.get(name, old[name]) for name in relation.key):
            yield Change(relation.name, "delete", {name: old[name] for name in relation.key})
            if unchanged and not whole:
                raise BadDataError(
                    "postgresql", "read the changes of", relation.name,
                    f"a row's key changed, and its large columns {', '.join(sorted(unchanged))} were not sent",
                    f"ALTER TABLE {relation.name} REPLICA IDENTITY FULL; then replicate with resync.",
                )  # fmt: skip
        if whole:  # the old row has what the new one leaves out
            values = {**{name: old[name] for name in unchanged}, **values}
            unchanged = frozenset()
        yield Change(relation.name, "upsert", values, unchanged)

    def _row(self, body: bytes, number: int) -> tuple[_Relation, tuple[dict[str, str | None], frozenset[str]], int]:
        """Read a row after its kind's letter; return how many bytes that took, too."""
        relation = self._relations[number]
        count, at = struct.unpack_from("!H", body, 1)[0], 3
        values: dict[str, str | None] = {}
        unchanged = set()
        for name in relation.columns[:count]:
            kind = body[at : at + 1]
            at += 1
            if kind == b"t":
                length = struct.unpack_from("!I", body, at)[0]
                at += 4
                values[name] = body[at : at + length].decode()
                at += length
            elif kind == b"n":
                values[name] = None
            else:
                unchanged.add(name)
        return relation, (values, frozenset(unchanged)), at


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(b"\0", at)
    return body[at:end].decode(), end + 1
