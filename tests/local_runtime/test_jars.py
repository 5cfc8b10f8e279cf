"""Java and the jars, offline: Spark's own Ivy downloads from a repository on loopback."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
import platform
import shutil
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import EnvironmentNotReady
from local_runtime import jars as local_jars
from spark.jar_sets import JAR_SETS, JarSet
from spark.jar_sets import JDBC as JDBC_SET

ROOT = Path(__file__).resolve().parents[2]
JDBC, LIGHTGBM = "postgresql-42.7.14.jar", "synapseml-lightgbm_2.12-1.1.3.jar"
IVY = """<ivy-module version="2.0"><info organisation="test" module="jars"/>
<configurations><conf name="jdbc"/><conf name="synapseml"/></configurations>
<dependencies>
<dependency org="org.postgresql" name="postgresql" rev="42.7.14"
    conf="jdbc->master" transitive="false"/>
<dependency org="com.microsoft.azure" name="synapseml-lightgbm_2.12" rev="1.1.3"
    conf="synapseml->master" transitive="false"/>
</dependencies></ivy-module>"""
POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>
</project>"""


@dataclass
class Repository:
    """A Maven layout in a folder, the settings that name it, and the requests of its server."""

    root: Path
    seen: list[str] = field(default_factory=list)
    proxy_login: str = ""

    def put(self, group: str, name: str, version: str, content: bytes) -> None:
        folder = self.root.joinpath("served", *group.split("."), name, version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}-{version}.pom").write_text(
            POM.format(group=group, name=name, version=version)
        )
        (folder / f"{name}-{version}.jar").write_bytes(content)

    def name_it(self, url: str) -> Path:
        path = self.root / "ivysettings.xml"
        resolver = f'<ibiblio name="ours" m2compatible="true" root="{url}"/>'
        path.write_text(
            "<ivysettings><settings"
            f' defaultResolver="ours"/><resolvers>{resolver}</resolvers></ivysettings>'
        )
        return path

    def handler(self) -> type[SimpleHTTPRequestHandler]:
        repository = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.seen.append(self.path)
                if (
                    repository.proxy_login
                    and self.headers.get("Proxy-Authorization") != repository.proxy_login
                ):
                    self.send_response(407)
                    self.send_header("Proxy-Authenticate", 'Basic realm="test"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                super().do_GET()

            def do_HEAD(self) -> None:
                repository.seen.append(self.path)
                super().do_HEAD()

            def translate_path(self, path: str) -> str:
                return str(repository.root / "served" / path.split("/maven/")[-1].lstrip("/"))

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Two small jars, locked and served: the product's own five need the network."""
    maven = Repository(tmp_path)
    maven.put("org.postgresql", "postgresql", "42.7.14", b"the driver")
    maven.put("com.microsoft.azure", "synapseml-lightgbm_2.12", "1.1.3", b"the engine")
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "ivy.xml").write_text(IVY)
    locked = {JDBC: b"the driver", LIGHTGBM: b"the engine"}
    (sources / "jars.sha256").write_text(
        "".join(
            f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in locked.items()
        )
    )
    monkeypatch.setattr(local_jars, "SOURCES", sources)
    monkeypatch.setattr(local_jars, "LOCKED_JARS", len(locked))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return maven


@pytest.fixture
def served(repository: Repository) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), repository.handler())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def private_authority(folder: Path) -> tuple[Path, Path]:
    """Return a self-signed certificate of 127.0.0.1, and the certificate with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a private authority")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
    )
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        critical=False,
    )
    certificate = builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    ).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "authority.pem").write_bytes(b"# a comment\n" + pem)
    (folder / "server.pem").write_bytes(pem + secret)
    return folder / "authority.pem", folder / "server.pem"


needs_natives = pytest.mark.skipif(
    platform.machine() not in local_jars.NATIVE_MACHINES,
    reason="SynapseML's natives exist for x86_64 only",
)


@needs_natives
def test_fetches_jars_once_then_only_verifies_them(
    repository: Repository,
    served: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "YIELDSPARK_IVY_SETTINGS",
        str(repository.name_it(f"http://127.0.0.1:{served.server_port}/maven/")),
    )
    announced: list[str] = []
    folder = tmp_path / "jars"
    jars = local_jars.ensure_jars(folder, announced.append)
    assert jars == local_jars.InstalledJars(
        {"jdbc": (folder / JDBC,), "synapseml": (folder / LIGHTGBM,)}, {}
    )
    assert len(announced) == 2
    request_count = len(repository.seen)
    assert local_jars.ensure_jars(folder, announced.append) == jars
    assert (len(announced), len(repository.seen)) == (2, request_count)
    assert sorted(path.name for path in folder.iterdir()) == [JDBC, LIGHTGBM]
    (folder / LIGHTGBM).unlink()
    assert local_jars.ensure_jars(folder, announced.append) == jars
    assert announced[2:] == [f"jars: fetching synapseml into {folder}"]


@needs_natives
def test_trusts_private_authority_of_ssl_cert_file(
    repository: Repository,
    served: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority, server = private_authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    served.socket = context.wrap_socket(served.socket, server_side=True)
    monkeypatch.setenv(
        "YIELDSPARK_IVY_SETTINGS",
        str(repository.name_it(f"https://127.0.0.1:{served.server_port}/maven/")),
    )
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    refused = local_jars.ensure_jars(tmp_path / "jars", lambda _: None)
    assert refused.files == {}
    assert "SSL_CERT_FILE for a private certificate authority" in refused.missing["jdbc"]
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert local_jars.ensure_jars(tmp_path / "jars", lambda _: None).missing == {}


@needs_natives
def test_uses_proxy_with_a_password(
    repository: Repository,
    served: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.proxy_login = "Basic " + base64.b64encode(b"someone:p@ss word").decode()
    monkeypatch.setenv(
        "YIELDSPARK_IVY_SETTINGS", str(repository.name_it("http://jars.invalid/maven/"))
    )
    monkeypatch.setenv("HTTP_PROXY", f"http://someone:p%40ss%20word@127.0.0.1:{served.server_port}")
    assert local_jars.ensure_jars(tmp_path / "jars", lambda _: None).missing == {}
    assert any(
        path.startswith("http://jars.invalid/maven/org/postgresql/") for path in repository.seen
    )


def test_blocked_download_continues_and_names_the_settings(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "YIELDSPARK_IVY_SETTINGS", str(repository.name_it("http://jars.invalid/maven/"))
    )
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    jars = local_jars.ensure_jars(tmp_path / "jars", lambda _: None)
    assert jars.files == {}
    jdbc, synapseml = jars.missing["jdbc"], jars.missing["synapseml"]
    for word in (
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "YIELDSPARK_IVY_SETTINGS",
        "READ_TRANSPORT=adbc",
        "Connection refused",
    ):
        assert word in jdbc
    assert "--engine lightgbm" in synapseml
    assert list((tmp_path / "jars").iterdir()) == []


@needs_natives
def test_jar_sets_are_fetched_separately(
    repository: Repository,
    served: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(tmp_path / "served" / "com")
    monkeypatch.setenv(
        "YIELDSPARK_IVY_SETTINGS",
        str(repository.name_it(f"http://127.0.0.1:{served.server_port}/maven/")),
    )
    jars = local_jars.ensure_jars(tmp_path / "jars", lambda _: None)
    assert jars.files == {"jdbc": (tmp_path / "jars" / JDBC,)}
    assert list(jars.missing) == ["synapseml"]
    assert "synapseml-lightgbm_2.12;1.1.3" in jars.missing["synapseml"]


def test_rejects_fetched_jar_with_a_wrong_checksum(
    repository: Repository,
    served: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.put("org.postgresql", "postgresql", "42.7.14", b"something else")
    monkeypatch.setenv(
        "YIELDSPARK_IVY_SETTINGS",
        str(repository.name_it(f"http://127.0.0.1:{served.server_port}/maven/")),
    )
    with pytest.raises(EnvironmentNotReady) as refused:
        local_jars.ensure_jars(tmp_path / "jars", lambda _: None)
    for word in (
        JDBC,
        hashlib.sha256(b"something else").hexdigest(),
        hashlib.sha256(b"the driver").hexdigest(),
        "not kept",
    ):
        assert word in str(refused.value)
    assert list((tmp_path / "jars").iterdir()) == []


def test_detects_a_changed_jar(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "jars" / JDBC
    path.parent.mkdir()
    path.write_bytes(b"the driver")
    before = path.stat()
    assert local_jars.check_jars(path.parent).files["jdbc"] == (path,)
    path.write_bytes(b"the drives")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        EnvironmentNotReady,
        match=rf"{JDBC} is refused: its sha256 is .* expects .*; delete the file and run again",
    ):
        local_jars.ensure_jars(path.parent, lambda _: None)


def test_other_architecture_uses_the_other_engine(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    reason = local_jars.check_jars(tmp_path).missing["synapseml"]
    assert "x86_64 only and this machine is aarch64" in reason
    assert "--engine lightgbm" in reason


def test_another_jar_set_is_one_entry(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar_set = JarSet("delta", "Delta Lake", ("delta-*.jar",), "tables are written as Parquet")
    monkeypatch.setitem(JAR_SETS, "delta", jar_set)
    lock = local_jars.SOURCES / "jars.sha256"
    lock.write_text(lock.read_text() + f"{hashlib.sha256(b'delta').hexdigest()}  delta-3.3.2.jar\n")
    monkeypatch.setattr(local_jars, "LOCKED_JARS", 3)
    assert local_jars.check_jars(tmp_path).missing["delta"] == (
        f"Delta Lake can't be used: not all of its files are in {tmp_path};"
        " tables are written as Parquet"
    )
    (tmp_path / "delta-3.3.2.jar").write_bytes(b"delta")
    jars = local_jars.check_jars(tmp_path)
    assert jars.files == {"delta": (tmp_path / "delta-3.3.2.jar",)}
    assert jars.loadable == (JDBC_SET, jar_set)


def test_names_missing_ivy_settings(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YIELDSPARK_IVY_SETTINGS", "/no/such/ivysettings.xml")
    with pytest.raises(
        EnvironmentNotReady,
        match=r"YIELDSPARK_IVY_SETTINGS=/no/such/ivysettings\.xml does not exist",
    ):
        local_jars.ensure_jars(tmp_path / "jars", lambda _: None)


def test_lock_file_matches_ivy() -> None:
    ivy = (ROOT / "local_runtime" / "spark_jars" / "ivy.xml").read_text()
    locked = local_jars.read_checksums()
    assert len(locked) == ivy.count("<dependency ") == 5
    for name, checksum in locked.items():
        artifact, _, revision = name.removesuffix(".jar").rpartition("-")
        assert f'name="{artifact}" rev="{revision}"' in ivy
        assert len(checksum) == 64


def test_names_a_damaged_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (ROOT / "local_runtime" / "spark_jars" / "jars.sha256").read_bytes()
    monkeypatch.setattr(local_jars, "SOURCES", tmp_path)
    for damaged in (b"", content[:100], content.replace(b"  ", b" ? ", 1), b"\xff" * 9):
        (tmp_path / "jars.sha256").write_bytes(damaged)
        with pytest.raises(EnvironmentNotReady, match=r"jars\.sha256 is damaged: .*git restore"):
            local_jars.read_checksums()
