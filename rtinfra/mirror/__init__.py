"""The offline mirror: everything that hosts install, locked, fetched, carried in, and published on a closed network."""
