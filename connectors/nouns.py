"""What the nouns of the estate are made of: names, columns, URLs, references to secrets, data classes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from connectors.secrets import SecretRef


class Noun(BaseModel):
    """Base of all nouns: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _secret(value: object, info: ValidationInfo) -> SecretRef:
    return SecretRef.parse(value, (info.context or {}).get("folder"))


def _without_password(value: object) -> object:
    if isinstance(value, str) and re.search(r"://[^\s/]*:\S*@", value):
        raise ValueError("holds a password; name it apart, as a reference of the form secret:NAME")
    return value


Secret = Annotated[
    SecretRef,
    BeforeValidator(_secret),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^secret:[A-Za-z][A-Za-z0-9_-]*$"}),
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=63)]
Column = Annotated[str, Field(min_length=1, max_length=255)]
SqlName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
Url = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9+.-]*://([^\s:/@]+@)?[^\s@]+$"),
    BeforeValidator(_without_password),
]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Cron = Annotated[str, Field(pattern=r"^\S+( \S+){4}$", examples=["0 2 * * *"])]


class DataClass(StrEnum):
    """How sensitive data is, from the least to the most."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        """Position in the order of sensitivity; 0 is public."""
        return list(DataClass).index(self)
