"""Searches for good values of a config's keys, by Optuna: any number of workers on one storage."""
