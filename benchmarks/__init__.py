"""Causeway side by side with its peers and its limit: lineitem of TPC-H from PostgreSQL into a lake on S3."""
