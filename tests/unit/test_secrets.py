"""Secrets are found where they are, and stay out of every text."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors import errors, redaction
from connectors.errors import CausewayError, SecretError
from connectors.redaction import redact, remember
from connectors.secrets import SecretRef

_VALUE = "correct-horse-battery"


def _groups() -> list[type[CausewayError]]:
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, CausewayError)]


@pytest.fixture(autouse=True)
def nothing_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with no secret remembered, none in the environment and no server."""
    monkeypatch.setattr(redaction, "_revealed", set())
    for name in ("DB_PASSWORD_X", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


def _file(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "secrets.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def test_the_environment_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(tmp_path, json.dumps({"DB_PASSWORD_X": "from-the-file"}))
    reference = SecretRef.parse("secret:DB_PASSWORD_X", tmp_path)
    assert reference.reveal() == "from-the-file"
    monkeypatch.setenv("DB_PASSWORD_X", "from-the-environment")
    assert reference.reveal() == "from-the-environment"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    _file(tmp_path, json.dumps({"DB_PASSWORD_X": _VALUE}), mode)
    with pytest.raises(SecretError, match="Run: chmod 600") as caught:
        SecretRef.parse("secret:DB_PASSWORD_X", tmp_path).reveal()
    assert _VALUE not in str(caught.value)


@pytest.mark.parametrize("content", [f'{{"DB_PASSWORD_X": "{_VALUE}"', f'["{_VALUE}"]', b"\xff" + _VALUE.encode(), ""])
def test_a_file_that_is_no_json_object_is_refused_without_being_quoted(tmp_path: Path, content: str | bytes) -> None:
    _file(tmp_path, content)
    with pytest.raises(SecretError, match="not a readable JSON object") as caught:
        SecretRef.parse("secret:DB_PASSWORD_X", tmp_path).reveal()
    assert _VALUE not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_secret_without_a_value_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(SecretError) as caught:
        SecretRef.parse("secret:DB_PASSWORD_X", tmp_path).reveal()
    said = str(caught.value)
    assert "secret:DB_PASSWORD_X" in said
    assert "environment variable DB_PASSWORD_X" in said
    assert "block 'db-password-x'" in said


def test_without_a_server_no_prefect_block_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect.blocks.system", None)  # its import would raise ImportError
    with pytest.raises(SecretError, match="no value anywhere"):
        SecretRef("DB_PASSWORD_X").reveal()


def test_with_a_server_the_block_has_the_name_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.blocks.system import Secret

    asked: list[str] = []

    def load(name: str, **_: Any) -> Secret[str]:
        asked.append(name)
        return Secret(value=_VALUE)

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(Secret, "load", load)
    assert SecretRef("DB_PASSWORD_X").reveal() == _VALUE
    assert asked == ["db-password-x"]


@pytest.mark.parametrize(
    "text", ["plain", "", None, 5, "secret:", "secret:1abc", "secret:a b", "SECRET:A", "secret:A\n"]
)
def test_what_is_no_reference_is_refused_without_being_repeated(text: object) -> None:
    with pytest.raises(ValueError, match="secret:") as caught:
        SecretRef.parse(text)
    assert text in (None, "", "secret:", 5) or str(text) not in str(caught.value)


def test_a_reference_shows_its_name_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD_X", _VALUE)
    reference = SecretRef.parse("secret:DB_PASSWORD_X", tmp_path)
    reference.reveal()
    for shown in (repr(reference), str(reference), f"{reference}", repr(pickle.loads(pickle.dumps(reference)))):
        assert "DB_PASSWORD_X" in shown
        assert _VALUE not in shown
        assert str(tmp_path) not in shown


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql://me:{}@db.example:5432/x",
        "two: s3://a:{}@h/ and redis://:{}@h:6379",
        "postgresql://me@corp:{}@db.example/x",
        "host=db.example user=me password={} dbname=x",
        "password='{}'", 'password: "{}"', "pwd={};server=x", "Passwd = {}",
        "PGPASSWORD={} psql", "aws_secret_access_key = {}", "client_secret:{}", "access_key={}",
        "{{'password': '{}', 'user': 'me'}}", '{{"secret_key": "{}"}}', '{{"token":"{}"}}',
        "Authorization: Bearer {}", "authorization: Basic {}", "token={}&page=2", "api_key={}", "X-Api-Key: {}",
    ],
)  # fmt: skip
def test_passwords_in_urls_dsns_and_keywords_are_redacted(text: str) -> None:
    assert _VALUE not in redact(text.replace("{{", "{").replace("}}", "}").replace("{}", _VALUE))


@pytest.mark.parametrize("password", ["p/w-x9", "p@w-x9", "p:w-x9", "12345", "p%40w-x9", "a@b/c@d"])
def test_a_password_that_was_not_escaped_is_redacted_whole(password: str) -> None:
    shown = redact(f"no answer from postgresql://me:{password}@db.example:5432/x in time")
    assert shown == "no answer from postgresql://me:***@db.example:5432/x in time"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8333/bucket is down, ask ops@firm.example",
        "postgresql://me@db.example:5432/x",
        "http://h:80: refused, mail me@firm.example",
        "access_key: secret:IDC_ACCESS",
        "secret:IDC_ACCESS has no value",
        "the password is wrong", "table tokens: 5 rows",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_revealed_secret_is_redacted_wherever_it_turns_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD_X", _VALUE)
    SecretRef("DB_PASSWORD_X").reveal()
    assert redact(f"server said: no such thing as {_VALUE}!") == "server said: no such thing as ***!"
    remember("abc")
    assert redact("abc") == "abc", "short values would make texts unreadable"


@pytest.mark.parametrize("kind", _groups())
def test_every_error_keeps_its_type_and_text_when_pickled(kind: type[CausewayError]) -> None:
    error = kind("postgresql", "connect to", "db", "password=hunter2 is wrong.", "Mend it.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "postgresql: connect to db: password=*** is wrong. Mend it."
    assert (again.provider, again.next_step) == ("postgresql", "Mend it.")
    assert "hunter2" not in repr(error)


def test_every_error_belongs_to_one_group_of_what_to_do_next() -> None:
    groups = (errors.RetryableError, errors.FixableError, errors.SkippableError)
    for kind in set(_groups()) - {CausewayError}:
        assert sum(issubclass(kind, group) for group in groups) == 1, kind
