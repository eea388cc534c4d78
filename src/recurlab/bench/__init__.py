"""How fast cells, recurrences and backends are beside torch's own layers, on the machine at hand."""
