"""One module for each part of `make bench`: it measures, and prints a JSON object of figures as its last line."""
