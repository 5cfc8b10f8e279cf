"""Methods other than plain collections: enabled APIs, the project and its policy, bucket policies,
peerings, record sets, database users, secret versions, schedule verbs. Each function registers the
routes of one service.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import google_crc32c

from emulator.control_plane.control_plane import ControlPlane, policy_name_of_bucket
from emulator.control_plane.monitoring_rules import check_descriptor
from emulator.control_plane.resource_store import PROJECT_NUMBER, TYPES, Document, ResourceStore
from emulator.services.http_service import Answer, ApiError, Request

PROJECT = r"projects/(?P<project>[^/:]+)"


def add_other_methods(plane: ControlPlane) -> None:
    """Register all of them."""
    _add_services(plane)
    _add_project(plane)
    _add_bucket_policies(plane)
    _add_peerings(plane)
    _add_record_sets(plane)
    _add_database_users(plane)
    _add_schedule_verbs(plane)
    _add_secret_versions(plane)
    _add_metric_descriptors(plane)


def _add_services(plane: ControlPlane) -> None:
    """https://cloud.google.com/service-usage/docs/reference/rest/v1/services"""
    base = rf"(?:/serviceusage\.googleapis\.com)?/v1/{PROJECT}/services"

    def service_json(name: str) -> Document:
        state = "ENABLED" if name in plane.enabled else "DISABLED"
        full = f"projects/{PROJECT_NUMBER}/services/{name}"
        return {"name": full, "config": {"name": name}, "state": state}

    def enable(names: list[str]) -> Answer:
        plane.enabled.update(names)
        services = [service_json(name) for name in names]
        operation = plane.operations.finished(
            f"operations/acat.{len(plane.enabled)}", {"services": services}
        )
        return Answer(operation)

    def listed(request: Request, project: str) -> Answer:
        return Answer({"services": [service_json(name) for name in sorted(plane.enabled)]})

    def enable_many(request: Request, project: str) -> Answer:
        return enable(request.json()["serviceIds"])

    def enable_one(request: Request, project: str, service: str) -> Answer:
        return enable([service])

    def get(request: Request, project: str, service: str) -> Answer:
        return Answer(service_json(service))

    plane.route("GET", base, listed)
    plane.route("POST", f"{base}:batchEnable", enable_many)
    plane.route("POST", rf"{base}/(?P<service>[^/:]+):enable", enable_one)
    plane.route("GET", rf"{base}/(?P<service>[^/:]+)", get)


def _add_project(plane: ControlPlane) -> None:
    """https://cloud.google.com/resource-manager/reference/rest/v1/projects"""
    base = rf"(?:/cloudresourcemanager\.googleapis\.com)?/v[13]/{PROJECT}"

    def require(project: str) -> None:
        plane.require_api("cloudresourcemanager.googleapis.com")
        if project not in (plane.project, PROJECT_NUMBER):
            raise ApiError(403, f"The caller does not have permission on project {project}")

    def get(request: Request, project: str) -> Answer:
        require(project)
        return Answer(
            {
                "projectId": plane.project,
                "projectNumber": PROJECT_NUMBER,
                "lifecycleState": "ACTIVE",
                "name": plane.project,
            }
        )

    def get_policy(request: Request, project: str) -> Answer:
        require(project)
        return Answer(plane.policies.get(f"projects/{plane.project}"))

    def set_policy(request: Request, project: str) -> Answer:
        require(project)
        policy = request.json()["policy"]
        return Answer(plane.policies.set(f"projects/{plane.project}", policy))

    def billing(request: Request, project: str) -> Answer:
        plane.require_api("cloudbilling.googleapis.com")
        return Answer({"projectId": plane.project, "billingEnabled": False})

    plane.route("GET", base, get)
    plane.route("POST", f"{base}:getIamPolicy", get_policy)
    plane.route("POST", f"{base}:setIamPolicy", set_policy)
    # https://cloud.google.com/billing/docs/reference/rest/v1/projects/getBillingInfo; at the root,
    # because the provider cuts the last part off the path that it is given
    plane.route("GET", rf"/v1/{PROJECT}/billingInfo", billing)


def _add_bucket_policies(plane: ControlPlane) -> None:
    """https://cloud.google.com/storage/docs/json_api/v1/buckets/getIamPolicy"""
    base = r"/storage/v1/b/(?P<bucket>[^/]+)/iam"

    def bucket_resource(bucket: str) -> Document:
        return plane.store.get(TYPES["storage.b"], {"id": bucket})

    def get(request: Request, bucket: str) -> Answer:
        bucket_resource(bucket)
        name = policy_name_of_bucket(bucket)
        return Answer({**plane.policies.get(name), "kind": "storage#policy", "resourceId": name})

    def put(request: Request, bucket: str) -> Answer:
        # https://cloud.google.com/storage/docs/public-access-prevention
        prevention = bucket_resource(bucket)["iamConfiguration"]["publicAccessPrevention"]
        policy = {
            key: value
            for key, value in request.json().items()
            if key in ("bindings", "etag", "version")
        }
        return Answer(
            plane.policies.set(
                policy_name_of_bucket(bucket), policy, public_access=prevention != "enforced"
            )
        )

    plane.route("GET", base, get)
    plane.route("PUT", base, put)


def _add_peerings(plane: ControlPlane) -> None:
    """https://cloud.google.com/service-infrastructure/docs/service-networking/reference/rest/v1/services.connections"""
    host = "servicenetworking.googleapis.com"
    base = rf"(?:/{re.escape(host)})?/v1/services/(?P<service>[^/:]+)/connections"
    connections: dict[str, Document] = {}

    def store_connection(service: str, body: Document) -> Answer:
        plane.require_api(host)
        network = network_of(plane.store, body["network"])
        reserved = body.get("reservedPeeringRanges", [])
        ranges = {
            entry["name"]
            for entry in plane.store.of_type("compute.addresses")
            if entry.get("purpose") == "VPC_PEERING"
        }
        if not reserved or set(reserved) - ranges:
            raise ApiError(400, f"Invalid reserved peering ranges: {reserved}")
        peering = host.replace(".", "-")
        connections[body["network"]] = {
            **body,
            "peering": peering,
            "service": f"services/{service}",
        }
        names = {"project": plane.project, "id": network["name"]}
        # Cloud SQL's rule for a private address reads the peering from the network
        plane.store.replace(
            TYPES["compute.networks"], names, {**network, "peerings": [{"name": peering}]}
        )
        operation = plane.operations.finished("operations/pssn.1", connections[body["network"]])
        return Answer(operation)

    def create(request: Request, service: str) -> Answer:
        body = request.json()
        if body["network"] in connections:
            raise ApiError(400, "Cannot modify allocated ranges in CreateConnection. Use Update.")
        return store_connection(service, body)

    def update(request: Request, service: str, connection: str) -> Answer:
        return store_connection(service, request.json())

    def listed(request: Request, service: str) -> Answer:
        plane.require_api(host)
        network = request.query.get("network")
        entries = [entry for key, entry in connections.items() if network in (None, key)]
        return Answer({"connections": entries})

    plane.route("POST", base, create)
    plane.route("GET", base, listed)
    plane.route("PATCH", rf"{base}/(?P<connection>[^/:]+)", update)


def _add_record_sets(plane: ControlPlane) -> None:
    """https://cloud.google.com/dns/docs/reference/rest/v1/resourceRecordSets"""
    zone_path = rf"(?:/dns\.googleapis\.com)?/dns/v1/{PROJECT}/managedZones/(?P<zone>[^/:]+)"
    records = plane.records

    def zone_of(project: str, zone: str) -> Document:
        return plane.store.get(TYPES["dns.managedZones"], {"project": project, "id": zone})

    def put(zone: Document, record: Document, *, new: bool) -> Document:
        key = (zone["name"], record["name"], record["type"])
        if not record["name"].endswith(zone["dnsName"]):
            raise ApiError(400, f"Invalid value for 'entity.name': '{record['name']}'")
        if new and key in records:
            raise ApiError(409, f"The resource '{record['name']}' already exists")
        records[key] = {**record, "kind": "dns#resourceRecordSet"}
        return records[key]

    def create(request: Request, project: str, zone: str) -> Answer:
        return Answer(put(zone_of(project, zone), request.json(), new=True))

    def change(request: Request, project: str, zone: str) -> Answer:
        managed_zone, body = zone_of(project, zone), request.json()
        for record in body.get("deletions", []):
            records.pop((zone, record["name"], record["type"]), None)
        for record in body.get("additions", []):
            put(managed_zone, record, new=True)
        return Answer({**body, "kind": "dns#change", "id": "1", "status": "done"})

    def get_change(request: Request, project: str, zone: str, change_id: str) -> Answer:
        return Answer({"kind": "dns#change", "id": change_id, "status": "done"})

    def listed(request: Request, project: str, zone: str) -> Answer:
        zone_of(project, zone)
        name_filter, type_filter = request.query.get("name"), request.query.get("type")
        selected = [
            record
            for (zone_name, name, kind), record in records.items()
            if zone_name == zone and name_filter in (None, name) and type_filter in (None, kind)
        ]
        return Answer({"rrsets": selected})

    plane.route("POST", f"{zone_path}/rrsets", create)
    plane.route("GET", f"{zone_path}/rrsets", listed)
    plane.route("POST", f"{zone_path}/changes", change)
    plane.route("GET", rf"{zone_path}/changes/(?P<change_id>[^/]+)", get_change)


def _add_database_users(plane: ControlPlane) -> None:
    """https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1beta4/users: the query names a
    user, and its password is never returned.
    """
    base = (
        rf"(?:/sqladmin\.googleapis\.com)?/sql/v1beta4/{PROJECT}"
        r"/instances/(?P<instance>[^/:]+)/users"
    )
    users: dict[tuple[str, str], Document] = {}
    type_ = TYPES["sqladmin.databases"]

    def changed(project: str, instance: str, user: Document, verb: str) -> Answer:
        plane.store.get(TYPES["sqladmin.instances"], {"project": project, "id": instance})
        public_fields = {key: value for key, value in user.items() if key != "password"}
        users[instance, user["name"]] = {"type": "BUILT_IN", **public_fields, "instance": instance}
        # with the password, which the real server needs
        plane.on_change("sqladmin.users", verb, {**user, "instance": instance})
        names = {"project": project, "instance": instance, "id": user["name"]}
        return plane.operations.answer(type_, names, {}, verb)

    def create(request: Request, project: str, instance: str) -> Answer:
        return changed(project, instance, request.json(), "create")

    def update(request: Request, project: str, instance: str) -> Answer:
        if not request.query.get("name"):
            raise ApiError(400, "Missing parameter: name.")
        user = {"name": request.query["name"], **request.json()}
        return changed(project, instance, user, "update")

    def listed(request: Request, project: str, instance: str) -> Answer:
        instance_users = [user for (owner, _), user in users.items() if owner == instance]
        return Answer({"kind": "sql#usersList", "items": instance_users})

    def get(request: Request, project: str, instance: str, name: str) -> Answer:
        if (instance, name) not in users:
            raise ApiError(404, f"User {name} was not found")
        return Answer(users[instance, name])

    plane.route("POST", base, create)
    plane.route("PUT", base, update)
    plane.route("GET", base, listed)
    plane.route("GET", rf"{base}/(?P<name>[^/:]+)", get)


def _add_schedule_verbs(plane: ControlPlane) -> None:
    """https://cloud.google.com/scheduler/docs/reference/rest/v1/projects.locations.jobs/pause"""
    type_ = TYPES["cloudscheduler.jobs"]
    base = rf"(?:/{re.escape(type_.host)})?/{type_.pattern}/(?P<id>[^/:]+)"
    states = {"pause": "PAUSED", "resume": "ENABLED"}

    def change(request: Request, verb: str, **names: str) -> Answer:
        job = plane.store.get(type_, names)
        return Answer(plane.store.replace(type_, names, {**job, "state": states[verb]}))

    plane.route("POST", rf"{base}:(?P<verb>pause|resume)", change)


def _add_secret_versions(plane: ControlPlane) -> None:
    """https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions"""
    host = "secretmanager.googleapis.com"
    base = rf"(?:/{re.escape(host)})?/v1/{PROJECT}/secrets/(?P<secret>[^/:]+)"

    def versions_of(project: str, secret: str) -> list[bytes]:
        plane.require_api(host)
        plane.store.get(TYPES["secretmanager.secrets"], {"project": project, "id": secret})
        return plane.secret_versions.setdefault(secret, [])

    def number_of(project: str, secret: str, version: str) -> int:
        values = versions_of(project, secret)
        is_number = re.fullmatch("[0-9]{1,9}", version)
        number = int(version) if is_number else 0
        if version == "latest":
            number = len(values)
        if not 1 <= number <= len(values):
            raise ApiError(
                404, f"Secret [projects/{project}/secrets/{secret}] not found or has no versions."
            )
        return number

    def add(request: Request, project: str, secret: str) -> Answer:
        values = versions_of(project, secret)
        values.append(base64.b64decode(request.json()["payload"]["data"]))
        return Answer(_version(project, secret, len(values)))

    def get(request: Request, project: str, secret: str, version: str) -> Answer:
        return Answer(_version(project, secret, number_of(project, secret, version)))

    def access(request: Request, project: str, secret: str, version: str) -> Answer:
        number = number_of(project, secret, version)
        value = versions_of(project, secret)[number - 1]
        payload = {
            "data": base64.b64encode(value).decode(),
            "dataCrc32c": str(google_crc32c.value(value)),
        }
        name = _version(project, secret, number)["name"]
        return Answer({"name": name, "payload": payload})

    plane.route("POST", f"{base}:addVersion", add)
    plane.route("GET", rf"{base}/versions/(?P<version>[^/:]+)", get)
    plane.route("GET", rf"{base}/versions/(?P<version>[^/:]+):access", access)


def network_of(store: ResourceStore, link: str) -> Document:
    """Return the network of a link, which has the project's number or its id.

    Raises:
        ApiError: 404.
    """
    name = link.rpartition("/")[2]
    for network in store.of_type("compute.networks"):
        if network["name"] == name:
            return network
    raise ApiError(404, f"The resource '{link}' was not found")


def _version(project: str, secret: str, number: int) -> dict[str, Any]:
    return {
        "name": f"projects/{PROJECT_NUMBER}/secrets/{secret}/versions/{number}",
        "createTime": "2026-01-01T00:00:00Z",
        "state": "ENABLED",
    }


def _add_metric_descriptors(plane: ControlPlane) -> None:
    """https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.metricDescriptors"""
    host = "monitoring.googleapis.com"
    base = rf"/{re.escape(host)}/v3/{PROJECT}/metricDescriptors"
    descriptors = plane.store.metric_descriptors

    def create(request: Request, project: str) -> Answer:
        plane.require_api(host)
        body: Document = request.json()
        check_descriptor(body)
        # the service updates a descriptor that exists
        descriptors[body["type"]] = body | {
            "name": f"projects/{project}/metricDescriptors/{body['type']}"
        }
        return Answer(descriptors[body["type"]])

    def live(name: str) -> Document:
        plane.require_api(host)
        if name not in descriptors:
            raise ApiError(404, f"Could not find descriptor for metric '{name}'.")
        return descriptors[name]

    def delete(request: Request, project: str, name: str) -> Answer:
        live(name)
        del descriptors[name]
        return Answer({})

    plane.route("POST", base, create)
    plane.route("GET", f"{base}/(?P<name>.+)", lambda request, project, name: Answer(live(name)))
    plane.route("DELETE", f"{base}/(?P<name>.+)", delete)
