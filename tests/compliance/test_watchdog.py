"""Hardware watchdog: a host that hangs is reset."""

import pytest

from roles.host import HostConfig
from roles.rt_kernel.model import RT_KERNEL
from roles.rt_tuning.model import RT_TUNING, WATCHDOG_DEVICE, WatchdogSettings
from rtinfra.verify import expect
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.kernel import Kernel
from rtinfra.verify.look.watchdog import Device, Watchdog

# What systemd prints for "never".
_NEVER = 2**64 - 1


@pytest.fixture
def settings(config: HostConfig) -> WatchdogSettings:
    """The settings; without a watchdog these controls mean nothing."""
    if not config[RT_TUNING].watchdog.enabled:
        expect.not_applicable("the settings say that this host has no hardware watchdog")
    return config[RT_TUNING].watchdog


@pytest.fixture
def device(watchdog: Watchdog, settings: WatchdogSettings) -> Device:
    """The chosen device, by its name: numbers change between boots."""
    chosen = next((dog for dog in watchdog.devices if settings.identity in (None, dog.identity)), None)
    present = ", ".join(dog.identity for dog in watchdog.devices)
    return expect.found(chosen, "watchdog devices", present, settings.identity or "any")


@pytest.mark.control(id="RT-10.50", severity="critical", title="The hardware watchdog is armed")
def test_device_is_active(device: Device) -> None:
    expect.equal(device.state, "active", f"state of {device.identity}")


@pytest.mark.control(id="RT-10.51", severity="critical", title="A host that hangs is reset after the set time")
def test_runtime(watchdog: Watchdog, settings: WatchdogSettings) -> None:
    expect.time_span(watchdog.manager.get("RuntimeWatchdogUSec", ""), settings.runtime, "RuntimeWatchdogSec")


@pytest.mark.control(id="RT-10.52", severity="high", title="A shutdown that hangs is reset after the set time")
def test_reboot(watchdog: Watchdog, settings: WatchdogSettings) -> None:
    expect.time_span(watchdog.manager.get("RebootWatchdogUSec", ""), settings.reboot, "RebootWatchdogSec")


@pytest.mark.control(id="RT-10.53", severity="high", title="The system uses the chosen watchdog device")
def test_device_in_use(watchdog: Watchdog, device: Device) -> None:
    expect.equal(watchdog.manager.get("WatchdogDevice"), WATCHDOG_DEVICE, "device that systemd was given")
    expect.equal(watchdog.link, device.path, f"what {WATCHDOG_DEVICE} leads to")


@pytest.mark.control(id="RT-10.54", severity="critical", title="The system feeds the watchdog in time")
def test_fed_in_time(computer: Computer, watchdog: Watchdog, settings: WatchdogSettings) -> None:
    fed = int(watchdog.manager.get("WatchdogLastPingTimestampMonotonic") or _NEVER)
    seconds = None if fed in (0, _NEVER) else computer.uptime - fed / 1e6
    expect.below(
        expect.found(seconds, "the watchdog was", "never fed", "fed"),
        settings.runtime.seconds,
        "time since it was fed",
        "s",
    )


@pytest.mark.control(id="RT-10.55", severity="high", title="The host restarts by itself after a kernel crash")
def test_restarts_after_panic(kernel: Kernel, config: HostConfig) -> None:
    words = dict(word.partition("=")[::2] for word in config[RT_KERNEL].parameters)
    required = str(config[RT_TUNING].sysctl.get("kernel.panic", words.get("panic", "0")))
    if required == "0":
        expect.not_applicable("the settings leave a crashed host down")
    actual = kernel.setting("kernel.panic")
    expect.equal(actual, required, "seconds until a restart after a crash (kernel.panic)")
