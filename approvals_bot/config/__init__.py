"""Loads config.toml and the workflow files, strictly, all or nothing, with a line for each problem."""
