"""The command line: `distilabel-dagster pipeline run`, `pipeline info`, `plan`, `cache list`, `cache show`."""
