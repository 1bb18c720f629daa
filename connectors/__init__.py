"""Connectors: the estate, and one package per kind of outside system."""
