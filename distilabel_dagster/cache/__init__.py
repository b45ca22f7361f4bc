"""The cache on disk: names, files, parts, snapshots."""
