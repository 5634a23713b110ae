"""The lab machines that are up: `pyinfra inventory/lab.py deploy.py`."""

from roles.fleet import load_checked_hosts
from rtinfra.inventory import groups
from rtinfra.paths import PROJECT, lab_inventory

globals().update(groups(load_checked_hosts(PROJECT, lab_inventory())))
