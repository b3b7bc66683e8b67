"""Loading config.toml and the workflows' files: strictly, all or nothing, each problem with its line."""
