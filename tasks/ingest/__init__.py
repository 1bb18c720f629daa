"""Ingest: bring a batch of a source into its table of the lake."""
