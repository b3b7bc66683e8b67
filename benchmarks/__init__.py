"""How fast it is and what it costs, measured side by side with the raw limits and with others: `make bench`."""
