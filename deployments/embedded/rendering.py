"""The files that follow from an installation's ports: its estate, and variables for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from connectors.errors import EstateError
from deployments.embedded.home import Home, write_private

TEMPLATE = Path(__file__).resolve().parents[1] / "estates" / "embedded.yaml"
# Only this form is a variable: a lone `$` ends regular expressions in an estate.
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def render_files(home: Home, ports: Mapping[str, int], template: Path = TEMPLATE) -> None:
    """Write the estate and the `env` file; one that would not change is not touched."""
    values = {name: str(port) for name, port in ports.items()}
    estate = substitute(template.read_text(encoding="utf-8"), values, str(template))
    _write_changed(home.estate_file, estate)
    _write_changed(home.env_file, _shell_variables(home, ports))


def substitute(text: str, values: Mapping[str, str], origin: str) -> str:
    """Replace each `${NAME}`; raises EstateError that lists all unknown names."""
    unknown = sorted(set(_VARIABLE.findall(text)) - values.keys())
    if unknown:
        names, choices = ", ".join(unknown), ", ".join(sorted(values))
        raise EstateError(
            "embedded estate",
            "fill in",
            origin,
            f"unknown variables: {names}",
            f"Known: {choices}.",
        )
    return _VARIABLE.sub(lambda match: values[match[1]], text)


def _shell_variables(home: Home, ports: Mapping[str, int]) -> str:
    variables = {
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['PREFECT_PORT']}/api",
        "CAUSEWAY_HOME": str(home.path),
        "CAUSEWAY_ESTATE": str(home.estate_file),
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _write_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
