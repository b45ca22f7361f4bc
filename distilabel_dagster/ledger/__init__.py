"""The ledger: an SQL database beside the cache's files, of who writes which step and of calls that were paid for."""
