"""Maintain: keep the lake small and fast while it is used."""
