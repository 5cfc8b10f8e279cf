"""The emulated network between jobs and database: the private name of the database, for processes
that run on this machine.

In: what was created (zone, record, instance, subnetworks, firewall rules) and a job's variables.
Out: the variables with the real address in place of the name, or the reason why the job would not
reach it. It does not emulate TLS: the server here has none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.resource_store import Document


class Unreachable(Exception):
    """A job can't do on this network what it has to; the message says what is missing."""


def reached(
    plane: ControlPlane, server: tuple[str, int], variables: Mapping[str, str], subnetwork: str
) -> dict[str, str]:
    """The variables of a job on this subnetwork, with the server's own host and port.

    Raises: Unreachable where the name has no record in a zone of the network, no instance has that
    address, or the instance is on another network.
    """
    network = subnetwork_named(plane, subnetwork)["network"]
    host = variables.get("DB_HOST", "")
    address = _address_of(plane, host, network)
    instances = [
        instance
        for instance in plane.store.of_type("sqladmin.instances")
        if {"type": "PRIVATE", "ipAddress": address} in instance["ipAddresses"]
        and _same(instance["settings"]["ipConfiguration"].get("privateNetwork", ""), network)
    ]
    if not instances:
        raise Unreachable(f"DB_HOST={host} is {address}, and no instance of {network} has it")
    found = dict(variables)
    for name, value in variables.items():
        if name.startswith("MLFLOW_"):
            found[name] = value.replace(host, ":".join(map(str, server)))
    return found | {"DB_HOST": server[0], "DB_PORT": str(server[1]), "DB_SSLMODE": "prefer"}


def require_batch_network(plane: ControlPlane, subnetwork: str) -> None:
    """What Dataproc Serverless asks of a subnetwork
    (https://cloud.google.com/dataproc-serverless/docs/concepts/network).

    Raises: Unreachable.
    """
    found = subnetwork_named(plane, subnetwork)
    if not found.get("privateIpGoogleAccess"):
        raise Unreachable(f"subnetwork {found['name']} has no Private Google Access")
    own = ipaddress.IPv4Network(found["ipCidrRange"])
    if not any(_lets_in(rule, found["network"], own) for rule in _firewalls(plane)):
        raise Unreachable(f"no rule lets machines of {found['name']} reach each other on any port")


def subnetwork_named(plane: ControlPlane, name: str) -> Document:
    """Args: name is the last part of its path, or all of it. Raises: Unreachable."""
    for found in plane.store.of_type("compute.subnetworks"):
        if found["name"] == name.rpartition("/")[2]:
            return found
    raise Unreachable(f"subnetwork {name} does not exist")


def _address_of(plane: ControlPlane, host: str, network: str) -> str:
    for zone in plane.store.of_type("dns.managedZones"):
        networks = zone.get("privateVisibilityConfig", {}).get("networks", [])
        if not any(_same(one["networkUrl"], network) for one in networks):
            continue
        record = plane.records.get((zone["name"], f"{host}.", "A"))
        if record:
            return str(record["rrdatas"][0])
    raise Unreachable(f"DB_HOST={host} has no record in a zone that {network} sees")


def _firewalls(plane: ControlPlane) -> list[Document]:
    return list(plane.store.of_type("compute.firewalls"))


def _lets_in(rule: Document, network: str, own: ipaddress.IPv4Network) -> bool:
    sources = [ipaddress.IPv4Network(one) for one in rule.get("sourceRanges", [])]
    return (
        rule["direction"] == "INGRESS"
        and not rule.get("disabled")
        and _same(rule["network"], network)
        and any(own.subnet_of(source) for source in sources)
        and any(one["IPProtocol"] == "all" for one in rule.get("allowed", []))
    )


def _same(one: str, other: str) -> bool:
    """Links with and without their beginning."""
    return bool(one) and one.partition("projects/")[2] == other.partition("projects/")[2]
