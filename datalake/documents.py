"""What the table `lake.objects` is: a row for each document that the lake keeps."""

from __future__ import annotations

from connectors.estate import Expectation, Table

TABLE = "objects"
KEY = ("source", "path")


def declared(table: Table) -> Table:
    """Return what `lake.objects` is, with the owner, class and expectations of the table that was asked for."""
    return table.model_copy(
        update={
            "mode": "merge",
            "key": list(KEY),
            "expectations": [
                *table.expectations,
                Expectation(expect="column_values_to_match_regex", column="sha256", regex="^[0-9a-f]{64}$"),
            ],
        }
    )
