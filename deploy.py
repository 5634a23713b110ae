"""What a deploy does with a host, in order. pyinfra executes this file once for each host.

Which roles there are says roles/catalogue.py, which a host has says the inventory, what they put on it says each role.
"""

from roles.target import current_target
from rtinfra.operations import packages, units

# Looks at the host and refuses it, with every reason, before anything on any host is changed.
target = current_target()

# Packages come from somewhere: a mirror is served before its clients are pointed at it.
target.supply()

# Before a new kernel can be installed: the next start is what runs now, until another has proven itself.
target.guard()

# One transaction for the packages of all roles, one look at the units of all roles: round trips are the cost.
packages.installed(name="packages", names=target.composed.packages, local=target.composed.local_packages)

# Before any program of ours starts to listen. New rules are on trial until a new login came through them.
target.protect()

# Files, with what they make of the running kernel. The host itself comes first and ends with its reboot, if it needs
# one; then the programs of the stack; then what the host is to hold itself against from now on.
target.place()

units.ensure(name="units", units=target.composed.units)
