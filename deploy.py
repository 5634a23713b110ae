"""Which role runs on which host, in order. pyinfra executes this file once for each host."""

from roles import telemetry
from roles.base import deploy as base
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
        mirror_server.serve(mirror.server, mirror.place, mirror.release.index)
    # No client goes on before the mirror serves.
    mirrors.awaited(name="mirror", server=mirror.place.host)
    if mirror.client is not None:
        mirror_client.configure(mirror.client, mirror.place, mirror.server is not None)

# One transaction for the packages of all roles, one look at the units of all roles: round trips are the cost.
packages.installed(name="packages", names=target.packages, local=target.local_packages)

base.configure(target.config.base)

if target.is_rt:
    rt, layout, group = target.rt, target.layout, target.config.base.realtime_group
    rt_tuning.configure(rt.rt_tuning, layout, group)
    rt_app.configure(rt.rt_app, layout, group)
    # Last of the changes: the reboot that follows brings up everything above at once.
    rt_kernel.configure(rt.rt_kernel, layout, target.distribution)
    rt_kernel.reboot(rt.rt_kernel, layout, target.distribution)

if target.telemetry.parts:
    # The checkers of configuration files are programs in these images.
    images.loaded(name="images", images=target.image_archives)
    telemetry.configure(target.telemetry)

units.ensure(name="units", units=target.units)
