"""Tests the content of a release: equal bytes for a commit in every checkout, and jobs that start
from the zip alone.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import zipfile
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest

from common.errors import ConfigurationError, EnvironmentNotReady
from config_spark import Settings, load_settings
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from local_runtime.jars import ensure_jars, read_checksums
from tests.conftest import JARS
from tests.support.processes import PROJECT
from tests.support.releases import BUCKET, cloud_settings, latest_version, objects
from workflows.releases.code_archive import build_archive, build_operator_archive
from workflows.releases.release import publish
from workflows.releases.release_batches import build_batches_json, job_entries, support_warnings
from workflows.releases.release_content import ReleaseContent, build_content
from workflows.releases.released_versions import find_release, read_batches
from workflows.spec.platform_choice import CLOUD_RUN_ROWS
from workflows.spec.release_paths import CODE, LATEST, OPERATOR_CODE, Release


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Settings of a release, with a folder that has the jars."""
    missing = ensure_jars(JARS, lambda line: None).missing
    if missing:
        pytest.skip("; ".join(missing.values()))
    return cloud_settings(None, jars_dir=JARS)


def git(folder: Path, *arguments: str) -> str:
    values = (
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.com",
        "-c",
        "commit.gpgsign=false",
    )
    return subprocess.run(
        ["git", "-C", str(folder), *values, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def clone(target: Path, *options: str, umask: int = -1) -> Path:
    """The newest commit of this checkout in another folder."""
    subprocess.run(
        ["git", "clone", "-q", "--shared", *options, str(PROJECT), str(target)],
        check=True,
        umask=umask,
    )
    return target


@pytest.fixture
def checkout(processes: None, tmp_path: Path) -> Path:
    return clone(tmp_path / "checkout")


def test_one_commit_gives_the_same_bytes_in_every_checkout(
    checkout: Path, tmp_path: Path, settings: Settings
) -> None:
    """In another folder, with other times, modes, line ends of the machine, and other files around
    it.
    """
    other = clone(tmp_path / "other", "-c", "core.autocrlf=true", umask=0o077)
    for path in (other / "forecasting").rglob("*.py"):
        path.chmod(0o700)
        os.utime(path, (0, 0))
    for name in (
        "database/__pycache__/tables.cpython-311.pyc",
        "data_processing/.env",
        "forecasting/.mypy_cache/forecasting.json",
    ):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text("not the product's")
    git(other, "config", "core.fileMode", "false")
    first, second = (build_content(settings, root=root) for root in (checkout, other))
    assert first.manifest_bytes() == second.manifest_bytes()
    assert (first.release, first.commit, dict(first.files)) == (
        second.release,
        second.commit,
        dict(second.files),
    )
    assert first.release.version == first.commit == git(checkout, "rev-parse", "HEAD")


def test_the_zip_contains_the_product_and_no_trace_of_the_machine(checkout: Path) -> None:
    with zipfile.ZipFile(BytesIO(build_archive(checkout))) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names if "/" in name} == {
        "cli",
        "common",
        "data_processing",
        "database",
        "forecasting",
        "monitoring",
        "sample_data",
        "spark",
    }
    # the transfer panel of the forecasts, and the licence that goes with it
    assert {name for name in names if name.startswith("sample_data/")} == {
        "sample_data/LICENSE",
        "sample_data/__init__.py",
        "sample_data/pool_history.parquet",
    }
    # zlib compresses differently in each version
    marks = {
        (entry.date_time, entry.compress_type, entry.create_system, entry.external_attr >> 16)
        for entry in entries
    }
    assert marks == {((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 3, 0o644)}


def test_the_operators_zip_has_what_its_commands_import_and_no_fake(checkout: Path) -> None:
    """cli/context.py takes the presence of `local_runtime/` for a laptop, so the jobs' zip lacks
    it.
    """
    folders = {path.name.removesuffix(".py") for path in checkout.iterdir()}
    with zipfile.ZipFile(BytesIO(build_operator_archive(checkout))) as archive:
        sources = {
            name: ast.parse(archive.read(name))
            for name in archive.namelist()
            if name.endswith(".py")
        }
        assert {"local_runtime/spark_jars/jars.sha256", "workflows/costs/prices.toml"} <= set(
            archive.namelist()
        )
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    present = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources
    }
    missing = set()
    for name, tree in sources.items():
        imported = {module for module in _imported(tree) if module.partition(".")[0] in folders}
        missing |= {(name, module) for module in imported - present}
    assert {module for _, module in missing if module.startswith("emulator")}
    assert {name for name, _ in missing} == WITHOUT_A_PLACE_IN_A_CONTAINER


WITHOUT_A_PLACE_IN_A_CONTAINER = {
    "workflows/__main__.py",
    "workflows/commands/local_commands.py",
}
"""Modules of the operator's zip that import what is not in it: none of its commands needs them."""


def _imported(tree: ast.Module) -> set[str]:
    nodes = list(ast.walk(tree))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return imported


def test_the_manifest_is_over_every_file(checkout: Path, settings: Settings) -> None:
    content = build_content(settings, root=checkout)
    jars = {f"jars/{name}": checksum for name, checksum in read_checksums().items()}
    manifest = content.manifest()
    assert {
        name: entry["sha256"] for name, entry in manifest["files"].items() if name in jars
    } == jars
    assert set(manifest["files"]) == {
        *jars,
        CODE,
        OPERATOR_CODE,
        "calculate_metrics.py",
        "forecast_pools.py",
        "batches.json",
    }
    for name, entry in manifest["files"].items():
        actual = content.files[name]
        assert (entry["bytes"], entry["sha256"]) == (
            len(actual),
            hashlib.sha256(actual).hexdigest(),
        )
    assert content.release == Release(BUCKET, content.commit, tuple(read_checksums()))


def test_batches_are_of_the_release_and_contain_no_password(settings: Settings) -> None:
    release = Release(BUCKET, "a" * 40, tuple(read_checksums()))
    document = build_batches_json(
        settings.model_copy(
            update={"db_password": load_settings(db_password="correct-horse").db_password}
        ),
        release,
    )
    assert {"calculate_metrics", "forecast_pools/lightgbm"} <= set(document["batches"])
    assert document["batches"]["calculate_metrics"]["pysparkBatch"]["pythonFileUris"] == [
        f"gs://{BUCKET}/versions/{'a' * 40}/yieldspark.zip"
    ]
    jobs = {
        "calculate_metrics": "yieldspark-calculate-metrics",
        "forecast_pools": "yieldspark-forecast-pools",
    }
    expected = {
        "version": "a" * 40,
        "project": "acme",
        "region": "europe-west1",
        "engine": "lightgbm",
        "platform": "dataproc",
        "platform_reason": "PLATFORM=dataproc",
        "deadline_seconds": 7800,
    }
    variables = document["operator_variables"]
    assert document == {
        **expected,
        "jobs": job_entries(),
        "cloud_run_jobs": jobs,
        "validation_job": "yieldspark-validate",
        "batches": document["batches"],
        "operator_variables": variables,
    }
    assert (variables["ENGINE"], variables["ENVIRONMENT"], variables["PROJECT_ID"]) == (
        "lightgbm",
        "production",
        "acme",
    )
    assert variables.keys().isdisjoint({"DB_PASSWORD", "JARS_DIR", "CODE_BUCKET"})
    assert "correct-horse" not in str(document)


@pytest.mark.parametrize(
    ("requested", "rows", "chosen", "reason"),
    [
        ("dataproc", 1, "dataproc", "PLATFORM=dataproc"),
        ("cloud_run", 10 * CLOUD_RUN_ROWS, "cloud_run", "PLATFORM=cloud_run"),
        (
            "auto",
            CLOUD_RUN_ROWS,
            "cloud_run",
            f"PLATFORM=auto, and EXPECTED_ROWS={CLOUD_RUN_ROWS} is at most {CLOUD_RUN_ROWS}, the",
        ),
        (
            "auto",
            CLOUD_RUN_ROWS + 1,
            "dataproc",
            f"PLATFORM=auto, and EXPECTED_ROWS={CLOUD_RUN_ROWS + 1} is above {CLOUD_RUN_ROWS}, the",
        ),
    ],
)
def test_a_release_names_the_platform_and_why_and_has_both(
    requested: str, rows: int, chosen: str, reason: str, settings: Settings
) -> None:
    settings_of_release = settings.model_copy(update={"platform": requested, "expected_rows": rows})
    release = Release(BUCKET, "a" * 40, tuple(read_checksums()))
    document = build_batches_json(settings_of_release, release)
    assert document["platform"] == chosen
    assert document["platform_reason"].startswith(reason)
    assert len(document["cloud_run_jobs"]) == 2
    assert set(document["batches"]) == set(build_batches_json(settings, release)["batches"])


def test_auto_leaves_an_engine_that_was_not_measured_to_batches(settings: Settings) -> None:
    """The runtime of a batch does not matter without a batch."""
    day = date(2026, 10, 1)
    synapseml = settings.model_copy(update={"engine": "synapseml", "platform": "auto"})
    release = Release(BUCKET, "a" * 40, tuple(read_checksums()))
    document = build_batches_json(synapseml, release, today=day)
    assert document["platform"] == "dataproc"
    assert "ENGINE=synapseml was not measured" in document["platform_reason"]
    assert len(support_warnings(synapseml, today=day)) == 1
    container = synapseml.model_copy(update={"platform": "cloud_run"})
    assert support_warnings(container, today=day) == []


def test_an_engine_whose_runtime_is_old_is_warned_of_and_one_whose_is_gone_left_out(
    settings: Settings,
) -> None:
    release, synapseml = (
        Release(BUCKET, "a" * 40, tuple(read_checksums())),
        settings.model_copy(update={"engine": "synapseml"}),
    )
    supported, old, gone = date(2026, 9, 30), date(2026, 10, 1), date(2028, 10, 1)
    assert (
        support_warnings(synapseml, today=supported) == support_warnings(settings, today=old) == []
    )
    (warning,) = support_warnings(synapseml, today=old)
    assert "no support since 2026-09-30" in warning
    assert "forecast_pools/synapseml" in build_batches_json(settings, release, today=old)["batches"]
    assert (
        "forecast_pools/synapseml"
        not in build_batches_json(settings, release, today=gone)["batches"]
    )
    with pytest.raises(ConfigurationError, match="available to 2028-09-30 only"):
        build_batches_json(synapseml, release, today=gone)


def test_a_checkout_that_differs_is_refused_or_gets_a_name_of_its_own(
    checkout: Path, settings: Settings
) -> None:
    (checkout / "README.md").write_text("changed")
    (checkout / "database" / "new.py").write_text("VALUE = 1\n")
    with pytest.raises(
        ConfigurationError,
        match=(
            r"differs from commit \w{12}: M README\.md, \?\? database/new\.py; commit or stash .*"
            r" --allow-dirty"
        ),
    ):
        build_content(settings, root=checkout)

    def dirty(settings: Settings) -> ReleaseContent:
        return build_content(settings, allow_dirty=True, root=checkout)

    first = dirty(settings)
    assert first.release.version.startswith("dirty-")
    assert len(first.release.version) == len("dirty-") + 12
    assert first.commit == git(checkout, "rev-parse", "HEAD")
    with zipfile.ZipFile(BytesIO(first.files[CODE])) as archive:
        assert archive.read("database/new.py") == b"VALUE = 1\n"
    assert dirty(settings).release == first.release
    other_settings = dirty(settings.model_copy(update={"batch_ttl_minutes": 60}))
    (checkout / "database" / "new.py").write_text("VALUE = 2\n")
    assert (
        len(
            {first.release.version, other_settings.release.version, dirty(settings).release.version}
        )
        == 3
    )
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "a change")
    assert build_content(settings, root=checkout).release.version == git(
        checkout, "rev-parse", "HEAD"
    )


def test_a_release_to_an_emulator_is_named_after_its_content(
    checkout: Path, settings: Settings
) -> None:
    """At home, settings change more often than commits, which would be a conflict under the
    commit's name. The address is not part of the content.
    """

    def version(port: int, limit: int) -> str:
        present = settings.model_copy(
            update={"google_api_endpoint": f"http://127.0.0.1:{port}", "batch_ttl_minutes": limit}
        )
        return build_content(present, root=checkout).release.version

    actual = [version(8085, 60), version(8086, 60), version(8085, 90)]
    assert all(name.startswith("local-") and len(name) == len("local-") + 12 for name in actual)
    assert actual[0] == actual[1] != actual[2]


@pytest.mark.usefixtures("processes")
def test_rejects_a_folder_without_a_checkout(tmp_path: Path, settings: Settings) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(
        ConfigurationError, match="release from a clone of YieldSpark with a commit"
    ):
        build_content(settings, root=tmp_path)
    (tmp_path / "inside").mkdir()
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "empty")
    with pytest.raises(ConfigurationError, match="inside/ of another checkout"):
        build_content(settings, root=tmp_path / "inside")


def test_jars_that_are_missing_or_damaged_are_refused(tmp_path: Path, checkout: Path) -> None:
    settings = cloud_settings(None, jars_dir=tmp_path / "jars")
    with pytest.raises(
        EnvironmentNotReady,
        match=r"postgresql-42\.7\.14\.jar.* not in .*/jars.*python run_spark_local\.py",
    ):
        build_content(settings, root=checkout)
    (tmp_path / "jars").mkdir()
    for name in read_checksums():
        (tmp_path / "jars" / name).write_bytes(b"damaged")
    with pytest.raises(
        EnvironmentNotReady,
        match=(
            r"lightgbmlib-\S+ is refused: its sha256 is \w+.*python run_spark_local\.py`, which"
            r" fetches it"
        ),
    ):
        build_content(settings, root=checkout)


def test_settings_that_a_release_needs_are_named(checkout: Path, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="CODE_BUCKET, PROJECT_ID not set"):
        build_content(
            settings.model_copy(update={"code_bucket": None, "project_id": None}), root=checkout
        )


def test_a_release_whose_models_would_end_with_each_batch_is_refused(
    checkout: Path, settings: Settings
) -> None:
    for registry in (None, "sqlite:////home/me/mlflow.db"):
        forgets = settings.model_copy(update={"mlflow_tracking_uri": registry})
        with pytest.raises(ConfigurationError, match="would fit a model and lose it"):
            build_content(forgets, root=checkout)
        at_home = forgets.model_copy(update={"google_api_endpoint": "http://127.0.0.1:8085"})
        assert build_content(at_home, root=checkout).release.version.startswith("local-")


@pytest.mark.usefixtures("processes")
def test_this_checkout_goes_up_whole(settings: Settings, tmp_path: Path) -> None:
    fake = FakeStorage(tmp_path, [BUCKET])
    with serving([fake]) as url:
        present = settings.model_copy(update={"google_api_endpoint": url})
        result = publish(present, allow_dirty=True)
        assert find_release(present).jars == tuple(sorted(read_checksums()))
        assert set(read_batches(present, find_release(present))["batches"]) >= {
            "calculate_metrics",
            "forecast_pools/lightgbm",
        }
    assert latest_version(fake) == result.version
    assert result.bytes == sum(
        len(content) for name, content in objects(fake).items() if name != LATEST
    )


@pytest.fixture(scope="module")
def unpacked(processes: None, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the release's zip and entries, and nothing else of the product."""
    folder = tmp_path_factory.mktemp("release")
    content = build_content(settings, allow_dirty=True)
    for name in (CODE, "calculate_metrics.py", "forecast_pools.py"):
        (folder / name).write_bytes(content.files[name])
    return folder


@pytest.mark.parametrize("job", ["calculate_metrics", "forecast_pools"])
def test_a_job_starts_from_the_zip_alone(unpacked: Path, job: str) -> None:
    """An isolated Python finds only the zip and the packages; every module of ours is imported from
    the zip.
    """
    program = f"""
import runpy, sys
sys.path.insert(0, {str(unpacked / CODE)!r})
sys.argv = ["{job}.py", "--help"]
try:
    runpy.run_path({str(unpacked / f"{job}.py")!r}, run_name="__main__")
finally:
    ours = (
        "common", "config_spark", "data_processing", "database", "forecasting", "cli", "spark"
    )
    files = [
        module.__file__ or "" for name, module in sys.modules.items()
        if name.split(".")[0] in ours
    ]
    assert files and all(file.startswith({str(unpacked / CODE)!r}) for file in files), files
"""
    result = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=unpacked,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, f"Usage: {job}" in result.stdout) == (0, True), (
        result.stdout + result.stderr
    )
