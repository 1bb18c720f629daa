"""Reads an estate file, and says everything that is wrong with it at once."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from connectors.errors import EstateError, NotFoundError
from connectors.estate import Estate
from connectors.estate_references import Problem, dangling_references

KeyPath = tuple[str | int, ...]
_SECRET_KEYS = {"access_key", "secret_key", "password", "token"}
_SCALARS = {"bool", "int", "float", "str"}
_UNSEEN = object()


@dataclass(frozen=True)
class Document:
    """The plain data of a YAML file, the line of every key path, and what YAML itself would have hidden."""

    data: Any
    lines: dict[KeyPath, int]
    problems: tuple[Problem, ...]


def read_estate(path: Path) -> Estate:
    """Return the estate of a file; raises EstateError that lists every mistake, NotFoundError without a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(
            "estate", "read", str(path), "there is no such file",
            "Name another file, or run `causeway up` for the embedded estate.",
        ) from None  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        raise EstateError("estate", "read", str(path), str(error)) from error
    document = parse_document(text, path)
    if not isinstance(document.data, dict):
        raise EstateError("estate", "read", str(path), "the file must be a mapping of keys to values")
    problems = [*document.problems, *dangling_references(document.data)]
    estate = None
    try:
        estate = Estate.model_validate(document.data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        problems.extend(_together(_explain(detail) for detail in error.errors(include_url=False)))
    if problems or estate is None:
        raise EstateError("estate", "read", str(path), _listed(path, document.lines, problems))
    return estate


def parse_document(text: str, path: Path) -> Document:
    """Parse YAML (safe types only); raises EstateError with the line where the syntax breaks."""
    lines: dict[KeyPath, int] = {}
    problems: list[Problem] = []
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
        if root is not None:
            _walk(root, (), lines, problems)
    except yaml.YAMLError as error:
        raise EstateError("estate", "read", str(path), f"not valid YAML: {error}") from error
    except RecursionError:
        raise EstateError("estate", "read", str(path), "nested too deeply, or an alias holds itself") from None
    return Document(data, lines, tuple(problems))


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[Problem]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, key.value)
            if below in lines:
                first = lines[below]
                problems.append(Problem(below, f"is given twice, first in line {first}"))
                for hidden in [one for one in lines if one[: len(below)] == below]:
                    del lines[hidden]  # YAML keeps the last, and so do we
            lines[below] = key.start_mark.line + 1
            _walk(value, below, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, problems)


def _together(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Join what pydantic says of each member of a union into one problem of the key."""
    for _, alike in groupby(problems, key=lambda problem: problem.path):
        first, *others = alike
        yield replace(first, message=" or ".join(dict.fromkeys([first.message, *(one.message for one in others)])))


def _explain(detail: ErrorDetails) -> Problem:
    path, owner = _locate(detail["loc"])
    kind, value = detail["type"], detail["input"]
    if _SECRET_KEYS.intersection(path) or _holds_mappings(value):
        value = _UNSEEN
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    choices: Sequence[str] = ()
    if kind == "extra_forbidden":
        choices = sorted(owner.model_fields) if owner else ()
        return Problem(path, f"unknown key{_nearest(path[-1], choices)}", _UNSEEN, tuple(choices))
    if kind == "missing":
        return Problem(path, "is required", _UNSEEN)
    if kind in ("literal_error", "enum"):
        choices = _quoted(str(detail["ctx"]["expected"]))
        return Problem(path, f"is not one of the choices{_nearest(value, choices)}", value, tuple(choices))
    if kind == "union_tag_invalid":
        choices = _quoted(str(detail["ctx"]["expected_tags"]))
        tag = detail["ctx"]["tag"]
        return Problem((*path, "kind"), f"is not one of the choices{_nearest(tag, choices)}", tag, tuple(choices))
    if kind == "union_tag_not_found":
        return Problem((*path, "kind"), "is required", _UNSEEN)
    return Problem(path, message, value)


def _holds_mappings(value: object) -> bool:
    """Whether a value is more than its own key speaks of, and so may hold somebody's secret."""
    if isinstance(value, list):
        return any(isinstance(one, list | dict) for one in value)
    return isinstance(value, dict)


def _quoted(text: str) -> list[str]:
    return text.split("'")[1::2]


def _nearest(value: object, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _locate(loc: Sequence[str | int]) -> tuple[KeyPath, type[BaseModel] | None]:
    """Return the key path without pydantic's union tags, and the model that owns its last key."""
    path: list[str | int] = []
    here: list[Any] = [Estate]
    owner: type[BaseModel] | None = None
    for part in loc:
        models = [one for one in here if isinstance(one, type) and issubclass(one, BaseModel)]
        tagged = [one for one in models if part in _tags(one)]
        if len(models) > 1 and tagged:
            here = list(tagged)
            continue
        if part == "[key]" or (len(here) > 1 and not models and part in _SCALARS):
            continue
        owner = models[0] if models else None
        path.append(part)
        here = [kind for one in here for kind in _below(one, part)]
    return tuple(path), owner


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    return typing.get_args(field.annotation) if field else ()


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """Yield the types that a key or an index below `annotation` may have."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        if field:
            yield from _members(field.annotation)
        return
    arguments = [one for one in typing.get_args(annotation) if one is not Ellipsis]
    if arguments:
        yield from _members(arguments[-1])


def _members(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif origin is typing.Union or type(annotation).__name__ == "UnionType":
        for member in typing.get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _listed(path: Path, lines: dict[KeyPath, int], problems: Sequence[Problem]) -> str:
    ordered = sorted(problems, key=lambda problem: _line(lines, problem.path))
    many = f"{len(ordered)} mistakes" if len(ordered) > 1 else "1 mistake"
    rows = [f"  {path}:{_line(lines, one.path)}: {_describe(one)}" for one in ordered]
    return "\n".join([many, *rows])


def _line(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """Return the line of the key, or of the nearest key above it that the file has."""
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


def _describe(problem: Problem) -> str:
    keys = ".".join(str(part) for part in problem.path) or "the file"
    # In backticks, since `token: must be …` without them would be taken for a token and redacted.
    text = f"`{keys}`: {problem.message}"
    if problem.value is not _UNSEEN and problem.value is not None:
        shown = repr(problem.value)
        text += f"; the value is {shown if len(shown) <= 80 else shown[:77] + '...'}"
    if problem.choices:
        text += f"; choose one of: {', '.join(problem.choices)}"
    return text
