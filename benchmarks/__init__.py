"""Speed and cost, compared with the machine's raw limits and with other systems: `make bench`."""
