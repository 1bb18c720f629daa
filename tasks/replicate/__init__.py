"""Replicate: follow the changes of a database."""
