"""What is done to a host. An operation looks once, then sends only the differences."""
