"""Emulated network between jobs and the database. Replaces the database's private name by the real
address, or reports why a job would not reach it. TLS is not emulated: the server here has none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.resource_store import Document


class Unreachable(Exception):
    """The network lacks something a job needs; the message names it."""


def route_variables(
    plane: ControlPlane, server: tuple[str, int], variables: Mapping[str, str], subnetwork: str
) -> dict[str, str]:
    """Return a job's variables with the server's real host and port.

    Args:
        plane: Zones, records, instances and networks.
        server: Host and port.
        variables: The job's variables.
        subnetwork: Subnetwork of the job.

    Raises:
        Unreachable: The name has no record in a zone of the network, or no instance of the network
            has that address.
    """
    network = subnetwork_named(plane, subnetwork)["network"]
    host = variables.get("DB_HOST", "")
    address = _address_of(plane, host, network)
    instances = [
        instance
        for instance in plane.store.of_type("sqladmin.instances")
        if {"type": "PRIVATE", "ipAddress": address} in instance["ipAddresses"]
        and _same_link(instance["settings"]["ipConfiguration"].get("privateNetwork", ""), network)
    ]
    if not instances:
        raise Unreachable(f"DB_HOST={host} is {address}, and no instance of {network} has it")
    # MLflow's address has the database's host too
    routed = dict(variables)
    for name, value in variables.items():
        if name.startswith("MLFLOW_"):
            routed[name] = value.replace(host, ":".join(map(str, server)))
    return routed | {"DB_HOST": server[0], "DB_PORT": str(server[1]), "DB_SSLMODE": "prefer"}


def require_batch_network(plane: ControlPlane, subnetwork: str) -> None:
    """Check a subnetwork by the requirements of Dataproc Serverless
    (https://cloud.google.com/dataproc-serverless/docs/concepts/network).

    Raises:
        Unreachable: A requirement is not met.
    """
    resource = subnetwork_named(plane, subnetwork)
    if not resource.get("privateIpGoogleAccess"):
        raise Unreachable(f"subnetwork {resource['name']} has no Private Google Access")
    ip_range = ipaddress.IPv4Network(resource["ipCidrRange"])
    if not any(_allows_traffic(rule, resource["network"], ip_range) for rule in _firewalls(plane)):
        raise Unreachable(
            f"no rule lets machines of {resource['name']} reach each other on any port"
        )


def subnetwork_named(plane: ControlPlane, name: str) -> Document:
    """Return a subnetwork by its path or the last part of it.

    Raises:
        Unreachable: It does not exist.
    """
    for resource in plane.store.of_type("compute.subnetworks"):
        if resource["name"] == name.rpartition("/")[2]:
            return resource
    raise Unreachable(f"subnetwork {name} does not exist")


def _address_of(plane: ControlPlane, host: str, network: str) -> str:
    for zone in plane.store.of_type("dns.managedZones"):
        # a private zone answers the networks that it lists alone
        networks = zone.get("privateVisibilityConfig", {}).get("networks", [])
        if not any(_same_link(entry["networkUrl"], network) for entry in networks):
            continue
        record = plane.records.get((zone["name"], f"{host}.", "A"))
        if record:
            return str(record["rrdatas"][0])
    raise Unreachable(f"DB_HOST={host} has no record in a zone that {network} sees")


def _firewalls(plane: ControlPlane) -> list[Document]:
    return list(plane.store.of_type("compute.firewalls"))


def _allows_traffic(rule: Document, network: str, ip_range: ipaddress.IPv4Network) -> bool:
    sources = [ipaddress.IPv4Network(entry) for entry in rule.get("sourceRanges", [])]
    return (
        rule["direction"] == "INGRESS"
        and not rule.get("disabled")
        and _same_link(rule["network"], network)
        and any(ip_range.subnet_of(source) for source in sources)
        and any(entry["IPProtocol"] == "all" for entry in rule.get("allowed", []))
    )


def _same_link(first: str, second: str) -> bool:
    """Compare links, with or without their host."""
    return bool(first) and first.partition("projects/")[2] == second.partition("projects/")[2]
