"""Which role runs on which host, in order. pyinfra executes this file once for each host."""

from roles import telemetry
from roles.base import deploy as base
from roles.drift import deploy as drift
from roles.mirror_client import deploy as mirror_client
from roles.mirror_server import deploy as mirror_server
from roles.rt_app import deploy as rt_app
from roles.rt_kernel import deploy as rt_kernel
from roles.rt_tuning import deploy as rt_tuning
from roles.target import current_target
from rtinfra.operations import images, packages, units
from rtinfra.operations import mirror as mirrors

# Looks at the host and refuses it, with every reason, before anything on any host is changed.
target = current_target()

if (mirror := target.mirror) is not None:
    if mirror.server is not None:
        mirror_server.serve(mirror.server, mirror.place, target.paths.mirror_source, target.paths.mirror_server)
    # No client goes on before the mirror serves.
    mirrors.awaited(name="mirror", server=mirror.place.host)
    if mirror.client is not None:
        mirror_client.configure(mirror.client, mirror.place, mirror.server is not None)

if target.is_rt:
    # Before a new kernel can be installed: the next start is what runs now, until another has proven itself.
    rt_kernel.guard(target.paths.boot_guard)

# One transaction for the packages of all roles, one look at the units of all roles: round trips are the cost.
packages.installed(name="packages", names=target.packages, local=target.local_packages)

base.configure(target.paths.base)

if target.is_rt:
    rt_tuning.configure(target.paths.rt_tuning, target.live)
    rt_app.configure(target.paths.application_user, target.paths.application)
    # Last of the changes: the reboot that follows brings up everything above at once.
    rt_kernel.configure(target.paths.boot_loader)
    rt_kernel.reboot(target.rt.rt_kernel, target.layout, target.distribution, target.rt_hosts)

if target.telemetry.parts:
    # The checkers of configuration files are programs in these images.
    images.loaded(name="images", images=target.image_archives)
    telemetry.configure(target.telemetry)

# What the host is to hold itself against from now on.
drift.configure(target.drift_paths)

units.ensure(name="units", units=target.units)
