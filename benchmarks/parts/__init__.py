"""The parts of `make bench`, a module each, which prints a JSON object of figures as its last line."""
