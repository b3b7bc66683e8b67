"""The service, put together: the only room where its objects are built."""
