"""What every way in shares: opening, acting, reading. No HTTP and no terminal."""
