"""pyinfra's own settings. pyinfra executes this file before it loads the inventory."""

from rtinfra.adapters import accept_inventory_directory, read_no_sources, tend_connections

REQUIRE_PYINFRA_VERSION = "~=3.10.0"

accept_inventory_directory()
tend_connections()
read_no_sources()
