"""The command line: `distilabel-dagster pipeline run`, `pipeline info`, `cache list`, `cache show`."""
