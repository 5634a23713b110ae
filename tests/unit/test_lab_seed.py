"""What an operator's image is told at its first start, read back as cloud-init does."""

from __future__ import annotations

from ruamel.yaml import YAML

from rtinfra.lab import seed

IDENTITY = seed.Identity(
    name="ubuntu",
    authorized_key="ssh-ed25519 AAAA rtinfra lab ubuntu",
    host_key="-----BEGIN OPENSSH PRIVATE KEY-----\nbbbb\n-----END OPENSSH PRIVATE KEY-----\n",
    host_public_key="ssh-ed25519 BBBB ubuntu",
    outside="52:54:00:00:00:01",
    lan="52:54:00:00:00:02",
    lan_addresses=(),
    apt_options='Acquire::http::Proxy "http://10.0.2.2:3142";\n',
)


def read(name: str, identity: seed.Identity = IDENTITY) -> dict[str, object]:
    found: dict[str, object] = YAML(typ="safe").load(seed.files(identity)[name])
    return found


def test_only_an_ordinary_user_logs_in_and_the_host_has_the_key_we_know() -> None:
    assert seed.files(IDENTITY)["user-data"].startswith("#cloud-config\n")
    told = read("user-data")
    (user,) = told["users"]  # type: ignore[misc]
    assert (user["name"], user["sudo"], user["ssh_authorized_keys"]) == (
        "ops",
        "ALL=(ALL) NOPASSWD:ALL",
        [IDENTITY.authorized_key],
    )
    assert told["disable_root"] is True and told["ssh_pwauth"] is False
    assert told["ssh_keys"] == {"ed25519_private": IDENTITY.host_key, "ed25519_public": IDENTITY.host_public_key}


def test_the_images_own_sources_stay_and_apt_gets_the_way_out_of_this_computer() -> None:
    assert read("user-data")["apt"] == {"preserve_sources_list": True, "conf": IDENTITY.apt_options}


def test_cards_are_known_by_their_addresses() -> None:
    outside = {"match": {"macaddress": "52:54:00:00:00:01"}, "dhcp4": True}
    assert read("network-config") == {"version": 2, "ethernets": {"outside": outside}}
    on_the_lan = seed.Identity(**{**IDENTITY.__dict__, "lan_addresses": ("10.77.0.10",)})
    lan = {"match": {"macaddress": "52:54:00:00:00:02"}, "addresses": ["10.77.0.10/24"]}
    assert read("network-config", on_the_lan)["ethernets"] == {"outside": outside, "lan": lan}
