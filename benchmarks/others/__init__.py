"""The common cycle on other systems, written as in their own documentation. They run in their own venv."""
