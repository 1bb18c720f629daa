"""The demo: real data at two sites, loaded into the lake, checked and queried."""
