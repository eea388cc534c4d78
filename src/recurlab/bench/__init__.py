"""How fast cells, recurrences and backends are beside torch's layers on this machine."""
