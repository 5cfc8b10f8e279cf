"""Attacks of another account of the machine, or of a changed bucket, on files, jobs and releases.
Each attack succeeded before its defence existed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from pyspark.sql import SparkSession

from cli.doctor.machine import folders
from common.errors import CloudRefused, EnvironmentNotReady, ReleaseConflict
from common.logging_setup import add_log_file
from common.private_files import change_owner, private_folder, write_private
from config_spark import Settings, load_settings
from database.connections.secret_manager import with_password
from database.embedded.folders import server_account
from database.embedded.process import recorded_port
from emulator.local import local_cloud
from emulator.services.batch_process import LocalPlatform
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.object_store import Conditions
from spark.session import temporary_folder
from tests.common.test_attacks import PASSWORD, TOKEN, _calls
from tests.support.processes import PROJECT
from tests.support.releases import BUCKET, FIRST, cloud_settings, small_release
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.release import publish_content
from workflows.releases.released_versions import find_release

RPC_REQUEST = 3
"""Message type of Spark's network protocol (`Message.java`): a request id of eight bytes, the size
of the body, and the body.
"""


def test_spark_driver_rejects_objects_of_other_accounts(spark: SparkSession) -> None:
    """Deserializing Java objects of other accounts may run their code."""
    body = b"\xac\xed\x00\x05"  # the begin of every serialised object
    message = bytes([RPC_REQUEST]) + struct.pack("!QI", 1, len(body)) + body
    port = int(str(spark.conf.get("spark.driver.port")))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(struct.pack("!Q", 8 + len(message)) + message)
        assert b"Expected SaslMessage" in line.recv(65536)


def test_change_owner_does_not_follow_links() -> None:
    """An account can replace a name in its own folder by a link at any moment."""
    paths = [PROJECT / "common" / "private_files.py"]
    for folder in ("database", "emulator", "local_runtime", "workflows"):
        paths += sorted((PROJECT / folder).rglob("*.py"))
    calls = list(chain.from_iterable(_calls(path, "chown") for path in paths))
    assert len(calls) >= 4
    assert [name for name, keywords in calls if "follow_symlinks" not in keywords] == []


def test_local_cloud_requires_the_token_of_a_private_file(
    database: Settings, tmp_path: Path
) -> None:
    settings = database.model_copy(update={"yieldspark_home": tmp_path / "home"})
    with local_cloud.local_cloud(settings) as cloud:
        token_file = Path(cloud.variables["GOOGLE_API_TOKEN_FILE"])
        assert cloud.variables["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"] == str(token_file)
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(token_file.parent.stat().st_mode) == 0o700
        paths = [token_file.parent, *token_file.parent.rglob("*")]
        assert [path for path in paths if path.stat().st_mode & 0o077] == []
        token = token_file.read_text()
        assert len(token) >= 32
        assert token not in json.dumps(dict(cloud.variables))
        secret_url = f"{cloud.url}/v1/{cloud.variables['DB_PASSWORD_SECRET']}:access"
        with pytest.raises(HTTPError, match="401"):
            urlopen(secret_url)
        with urlopen(Request(secret_url, headers={"Authorization": f"Bearer {token}"})) as answer:
            assert answer.status == 200
        variables = {name.lower(): value for name, value in cloud.variables.items()}
        assert database.db_password is not None
        assert _password_by(variables) == database.db_password.get_secret_value()
        without = variables | {"google_api_token_file": None}
        with pytest.raises(CloudRefused, match="GOOGLE_API_TOKEN_FILE is not set"):
            _password_by(without)
    assert not token_file.exists()
    with pytest.raises(EnvironmentNotReady, match=r"take the variables that .* prints"):
        _password_by(variables)


def _password_by(variables: Mapping[str, str | None]) -> str:
    """Return the database password that a job with these settings gets."""
    settings = with_password(load_settings(_env_file=None, db_password=None, **variables))
    assert settings.db_password is not None
    return settings.db_password.get_secret_value()


JOB = """
echo $(id -u) $(cat $GOOGLE_API_TOKEN_FILE) $(stat -c %a $GOOGLE_API_TOKEN_FILE)
for name in NAME.driveroutput NAME.errors; do
    rm -f ../$name; ln -s -f $1 ../$name; ln -s $1 $name
done
ln -s $(dirname $1) folder
"""


@pytest.mark.usefixtures("processes")
def test_job_output_does_not_follow_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job is a shell script, because the account may not reach this Python."""
    if os.geteuid() != 0:
        pytest.skip("only root hands a job's folder to another account")
    account = server_account()
    assert account is not None
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    # pytest's own folders are closed to other accounts
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="yieldspark-attack-"))
    try:
        folder.chmod(0o711)
        secret, entry = folder / "of_root", folder / "entry.sh"
        write_private(secret, PASSWORD)
        entry.write_text(JOB.replace("NAME", "job-1"))
        platform = LocalPlatform(folder, "http://127.0.0.1:1", account, TOKEN)
        job = platform.run_container(entry, [str(secret)], {}, "job-1")
        while job.poll() is None:
            time.sleep(0.02)
        assert job.errors is not None
        assert job.output.read_text() == f"{account.uid} {TOKEN} 600\n"
        assert job.errors.read_text().count("Permission denied") == 4
        for path in (job.output, job.errors):
            assert not path.is_symlink()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (secret.read_text(), secret.stat().st_uid) == (PASSWORD, 0)
        assert not (folder / "batches" / "job-1").exists()
    finally:
        shutil.rmtree(folder)


def test_change_owner_excludes_targets_of_links(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    account = server_account()
    assert account is not None
    secret, other = tmp_path / "of_root", tmp_path / "folder_of_root"
    write_private(secret, PASSWORD)
    private_folder(other)
    write_private(other / "inner", PASSWORD)
    models = private_folder(tmp_path / "models")
    (models / "link").symlink_to(secret)
    (models / "folder").symlink_to(other)
    os.link(secret, models / "second_name")
    (models / "deep").mkdir()
    (models / "deep" / "own").write_text("x")
    change_owner(models, account.uid, account.gid)
    owners = {path.name: path.lstat().st_uid for path in (secret, other, other / "inner")}
    assert owners == {"of_root": 0, "folder_of_root": 0, "inner": 0}
    assert {path.name for path in models.rglob("*")} == {"second_name", "deep", "own"}
    assert (models / "deep" / "own").stat().st_uid == models.stat().st_uid == account.uid


def test_reads_files_of_other_accounts_without_a_second_name(tmp_path: Path) -> None:
    """The account of the batches also owns the embedded server's folder."""
    secret, data = tmp_path / "of_root", private_folder(tmp_path / "data")
    write_private(secret, "1\n2\n3\n5432\n")
    write_private(data / "postmaster.pid", secret.read_text())
    assert recorded_port(data) == 5432
    for replace in (Path.symlink_to, Path.hardlink_to):
        (data / "postmaster.pid").unlink()
        replace(data / "postmaster.pid", secret)
        assert recorded_port(data) is None
    (data / "postmaster.pid").unlink()
    os.mkfifo(data / "postmaster.pid")
    assert recorded_port(data) is None


def test_state_is_private_and_doctor_reports_shared_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    settings = Settings(yieldspark_home=home, report_dir=tmp_path, _env_file=None)
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "yieldspark.log").write_text("of an earlier version\n")
    for path in (home / "logs", home / "logs" / "yieldspark.log"):
        path.chmod(0o755)
    result, message, fix = folders(settings)
    assert (result, str(home / "logs") in message) == ("warn", True)
    assert fix.startswith("chmod -R go= ")
    handlers = list(logging.getLogger().handlers)
    path = add_log_file(settings.yieldspark_home)
    for handler in set(logging.getLogger().handlers) - set(handlers):
        logging.getLogger().removeHandler(handler)
        handler.close()
    modes = [stat.S_IMODE(item.stat().st_mode) for item in (path, path.parent)]
    assert modes == [0o600, 0o700]
    assert folders(settings)[0] == "ok"
    assert stat.S_IMODE(Path(temporary_folder()).stat().st_mode) == 0o700
    home.chmod(0o777)
    assert folders(settings)[0] == "warn"


def test_does_not_submit_a_changed_release(tmp_path: Path) -> None:
    storage = FakeStorage(tmp_path, [BUCKET])
    with serving([storage]) as url:
        settings = cloud_settings(url)
        publish_content(CodeBucket(settings), small_release(FIRST))
        assert find_release(settings).version == FIRST
        name = f"versions/{FIRST}/yieldspark.zip"
        content = storage.store.read(BUCKET, name, Conditions())[1]
        for changed_content in (content[::-1], content + b"x"):
            storage.store.write(
                BUCKET, name, changed_content, {"contentType": "x/y"}, Conditions(), {}
            )
            for version in (None, FIRST):
                with pytest.raises(ReleaseConflict, match=r"is incomplete: yieldspark\.zip has"):
                    find_release(settings, version)
        storage.store.write(BUCKET, name, content, {"contentType": "x/y"}, Conditions(), {})
        extra = f"versions/{FIRST}/jars/evil.jar"
        storage.store.write(BUCKET, extra, b"x", {"contentType": "x/y"}, Conditions(), {})
        with pytest.raises(ReleaseConflict, match=r"evil\.jar is not in the manifest"):
            find_release(settings)
