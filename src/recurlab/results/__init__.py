"""Reading runs back from their directories: models, metrics and figures."""
