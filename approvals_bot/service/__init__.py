"""The service that every entry point shares: opening, acting, reading. No HTTP and no terminal."""
