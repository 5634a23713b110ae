"""pyinfra's own settings. pyinfra executes this file before it loads the inventory."""

from rtinfra.adapters import (
    accept_inventory_directory,
    know_hosts_line_by_line,
    read_no_sources,
    tend_connections,
)
from rtinfra.become import become_root

REQUIRE_PYINFRA_VERSION = "~=3.10.0"

accept_inventory_directory()
tend_connections()
become_root()
know_hosts_line_by_line()
read_no_sources()
