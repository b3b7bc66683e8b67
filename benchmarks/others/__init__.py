"""The common cycle on other systems, as their own documentation would have it. Run in a venv of their own."""
