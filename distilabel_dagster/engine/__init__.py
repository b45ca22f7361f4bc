"""The engine: runs a graph against a cache and tells of it by events."""
