"""The software bill of materials of a lock: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from rtinfra.mirror.model import LOCAL, Lock, LockedImage, LockedPackage, LockedWheel, canonical

# So that the serial number of a lock is always the same one, and never another lock's.
_SERIALS = uuid.uuid5(uuid.NAMESPACE_OID, "rtinfra mirror lock")


def sbom(lock: Lock) -> bytes:
    """Return the bill of materials: the same bytes from the same lock."""
    components = sorted(_components(lock), key=lambda component: str(component["bom-ref"]))
    return canonical(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, lock.id)}",
            "version": 1,
            "metadata": {
                "timestamp": f"{lock.created:%Y-%m-%dT%H:%M:%SZ}",
                "component": {
                    "type": "platform",
                    "bom-ref": f"lock:{lock.id}",
                    "name": f"rtinfra mirror, Debian {lock.suite} {lock.architecture}",
                    "version": lock.id,
                },
            },
            "components": components,
        }
    )


def _components(lock: Lock) -> Iterator[dict[str, Any]]:
    for package in lock.packages:
        yield _component("library", _deb(package, lock), package.name, package.version, package.sha256)
    for image in lock.images:
        component = _component("container", _oci(image), image.name, image.version, image.manifest.sha256)
        yield component | {"licenses": [{"license": {"id": image.licence}}]}
    for wheel in lock.wheels:
        # One version has several wheels, one for each Python.
        reference = f"{_pypi(wheel)}?file_name={_quoted(wheel.file)}"
        yield _component("library", reference, wheel.name, wheel.version, wheel.sha256)
    for file in lock.files:
        yield {
            "type": "file",
            "bom-ref": f"file:{file.name}",
            "name": file.name,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        }


def _component(kind: str, purl: str, name: str, version: str, sha256: str) -> dict[str, Any]:
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }


def _deb(package: LockedPackage, lock: Lock) -> str:
    # A package of our own or of a vendor is not Debian's, whatever its name is.
    vendor = "rtinfra" if package.origin == LOCAL else "debian"
    where = f"?arch={_quoted(package.architecture)}&distro={_quoted(lock.suite)}"
    return f"pkg:deb/{vendor}/{_quoted(package.name)}@{_quoted(package.version)}{where}"


def _oci(image: LockedImage) -> str:
    name = image.repository.rpartition("/")[2].lower()
    where = f"?repository_url={_quoted(image.repository)}&tag={_quoted(image.version)}"
    return f"pkg:oci/{_quoted(name)}@sha256%3A{image.manifest.sha256}{where}"


def _pypi(wheel: LockedWheel) -> str:
    return f"pkg:pypi/{_quoted(wheel.name)}@{_quoted(wheel.version)}"


def _quoted(text: str) -> str:
    """Encode as in a package URL, https://github.com/package-url/purl-spec."""
    return quote(text, safe=":/.-_~")
