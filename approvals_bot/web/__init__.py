"""The service over HTTP: the API for programs, pages for people."""
