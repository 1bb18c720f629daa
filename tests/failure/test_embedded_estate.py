"""The embedded estate on real servers: what is killed is mended, what was written stays."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from minio import Minio

from connectors.errors import SecretError, ServiceError
from deployments.embedded import Home, State, Status, down, remove, status, up
from deployments.embedded.ports import listeners, load_ports, socket_inodes
from deployments.embedded.process import read_record, relatives
from deployments.embedded.secrets import load_secrets
from deployments.embedded.services import ending, marks

pytestmark = pytest.mark.servers

SERVERS = ("prefect", "idc-objects", "cloud-objects", "idc-database")
LIGHT = ("idc-objects", "idc-database")
ORDINARY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
ROOT = Path(__file__).resolve().parents[2]


class Installation:
    """An installation under test, with one known thing written into every server."""

    def __init__(self, path: Path, servers: tuple[str, ...]) -> None:
        self.home, self.servers = Home(path), servers
        self.lines: list[str] = []

    def up(self) -> Status:
        self.lines.clear()
        return up(self.home, progress=self.lines.append, services=self.servers)

    def pids(self) -> dict[str, int]:
        found = status(self.home)
        return {name: pid for name in self.servers if (pid := found[name].pid) is not None}

    def every_pid(self) -> set[int]:
        """The servers' own processes and all that they started."""
        family = {
            process.pid
            for name in self.servers
            for process in relatives(marks(self.home, name), ending(self.home, name).title)
        }
        return family | set(self.pids().values())

    def kill(self, *names: str) -> None:
        pids = self.pids()
        for name in names:
            os.kill(pids[name], signal.SIGKILL)

    def objects(self, site: str) -> Minio:
        secrets, prefix = load_secrets(self.home), f"{site.upper()}_OBJECTS"
        return Minio(
            f"127.0.0.1:{load_ports(self.home)[f'{prefix}_PORT']}",
            secrets[f"{prefix}_ACCESS_KEY"],
            secrets[f"{prefix}_SECRET_KEY"],
            secure=False,
        )

    def database(
        self, name: str = "business", *, user: str = "", password: str = ""
    ) -> psycopg.Connection[tuple[Any, ...]]:
        secret = load_secrets(self.home)[f"{(user or name).upper()}_PASSWORD"]
        return psycopg.connect(
            host="127.0.0.1",
            port=load_ports(self.home)["IDC_DATABASE_PORT"],
            dbname=name,
            user=user or name,
            password=password or secret,
        )

    def prefect(self) -> httpx.Client:
        port = load_ports(self.home)["PREFECT_PORT"]
        return httpx.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False, timeout=30)

    def write(self, key: str) -> None:
        """Put `key` into every server; what returns is acknowledged and must survive."""
        for site in ("idc", "cloud"):
            if f"{site}-objects" in self.servers:
                client = self.objects(site)
                if not client.bucket_exists("kept"):
                    client.make_bucket("kept")
                client.put_object("kept", key, io.BytesIO(key.encode()), len(key))
        with self.database() as connection:
            connection.execute("create table if not exists kept (key text primary key)")
            connection.execute("insert into kept values (%s)", [key])
        if "prefect" in self.servers:
            with self.prefect() as api:
                api.post("/variables/", json={"name": key, "value": key}).raise_for_status()

    def holds(self, key: str) -> bool:
        for site in ("idc", "cloud"):
            if f"{site}-objects" in self.servers:
                response = self.objects(site).get_object("kept", key)
                with response:
                    assert response.read() == key.encode()
        with self.database() as connection:
            found = connection.execute("select key from kept where key = %s", [key]).fetchall()
            assert found == [(key,)]
        if "prefect" in self.servers:
            with self.prefect() as client:
                assert client.get(f"/variables/name/{key}").json()["value"] == key
        return True


def started(path: Path, servers: tuple[str, ...]) -> Iterator[Installation]:
    installation = Installation(path, servers)
    try:
        installation.up()
        yield installation
    finally:
        remove(installation.home)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """All servers, for tests that leave them mended."""
    installation = Installation(tmp_path_factory.mktemp("estate") / "home", SERVERS)
    try:
        installation.up()
        installation.write("first")
        yield installation
    finally:
        remove(installation.home)


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Installation]:
    """The two quick servers, in a folder of its own, for tests that break the installation."""
    yield from started(tmp_path / "home", LIGHT)


def command(home: Home, *names: str, python: str = sys.executable) -> list[str]:
    """A command line that does `up` in a process of its own."""
    code = (
        "import sys; from deployments.embedded import Home, up;"
        "sys.exit(not up(Home(sys.argv[1]), progress=print, services=sys.argv[2:]).healthy)"
    )
    return [python, "-c", code, str(home.path), *names]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_everything_is_up_and_each_ready_server_was_reported(shared: Installation) -> None:
    found = shared.up()
    assert found.healthy
    assert {service.site for service in found.services} == {None, "idc", "cloud"}
    assert shared.holds("first")


def test_up_does_nothing_within_two_seconds_when_all_is_well(shared: Installation) -> None:
    shared.up()
    before, began = shared.pids(), time.monotonic()
    shared.up()
    assert time.monotonic() - began < 2
    assert shared.pids() == before
    assert shared.lines == ["all 4 servers are running"]


def test_a_look_at_the_estate_does_not_import_prefect() -> None:
    code = "import sys, deployments.embedded; sys.exit('prefect' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_servers_are_children_of_nobody(shared: Installation) -> None:
    for pid in shared.pids().values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        parent, session = int(fields[1]), int(fields[3])
        assert parent != os.getpid()
        assert session == pid


def test_nothing_listens_beyond_loopback(shared: Installation) -> None:
    inodes = {inode for pid in shared.every_pid() for inode in socket_inodes(pid)}
    ours = [listener for listener in listeners() if listener.inode in inodes]
    expected = set(load_ports(shared.home).values()) - {load_ports(shared.home)["PARTNER_API_PORT"]}
    assert expected <= {listener.port for listener in ours}
    assert {listener.address for listener in ours} == {"127.0.0.1"}


def test_only_the_owner_can_read_an_installation(shared: Installation) -> None:
    found = shared.home.path.glob("*/*")  # what lies deeper lies in folders that are closed
    for path in (shared.home.path, *shared.home.path.iterdir(), *found):
        assert not stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO), path


def test_no_command_line_log_or_record_shows_a_secret(shared: Installation) -> None:
    texts = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in shared.every_pid()]
    texts += [path.read_bytes() for path in (shared.home.path / "logs").iterdir()]
    texts += [path.read_bytes() for path in (shared.home.path / "run").glob("*.json")]
    texts += [shared.home.estate_file.read_bytes(), shared.home.env_file.read_bytes()]
    for name, secret in load_secrets(shared.home).items():
        assert not any(secret.encode() in text for text in texts), name


def test_the_database_wants_passwords_and_keeps_roles_apart(shared: Installation) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        shared.database(password="wrong")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        shared.database("lake_catalog", user="business")
    with shared.database() as connection:
        settings = "select current_setting('is_superuser'), current_setting('fsync')"
        assert connection.execute(settings).fetchone() == ("off", "on")


def test_the_site_of_one_key_refuses_the_key_of_the_other(shared: Installation) -> None:
    secrets = load_secrets(shared.home)
    stranger = Minio(
        f"127.0.0.1:{load_ports(shared.home)['IDC_OBJECTS_PORT']}",
        secrets["CLOUD_OBJECTS_ACCESS_KEY"],
        secrets["CLOUD_OBJECTS_SECRET_KEY"],
        secure=False,
    )
    with pytest.raises(Exception, match=r"InvalidAccessKeyId|AccessDenied"):
        stranger.list_buckets()


def test_the_prefect_ui_is_served_without_a_network(shared: Installation) -> None:
    port = load_ports(shared.home)["PREFECT_PORT"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        page = client.get("/", headers={"accept": "text/html"}, follow_redirects=True)
        settings = client.get("/ui-settings").json()
    assert page.status_code == 200
    assert "<html" in page.text
    assert settings["api_url"] == f"http://127.0.0.1:{port}/api"


@pytest.mark.parametrize("server", SERVERS)
def test_one_killed_server_is_mended_and_loses_nothing(shared: Installation, server: str) -> None:
    shared.up()
    before = shared.pids()
    shared.write(f"before_{server.replace('-', '_')}")
    shared.kill(server)
    wait_for(lambda: status(shared.home)[server].state is State.DEAD)
    assert shared.up().healthy
    after = shared.pids()
    assert {name for name in SERVERS if before[name] != after[name]} == {server}
    assert shared.holds("first")
    assert shared.holds(f"before_{server.replace('-', '_')}")


def test_all_servers_killed_in_any_order_are_mended_and_lose_nothing(shared: Installation) -> None:
    for attempt in range(2):
        shared.up()
        shared.write(f"round_{attempt}")
        shared.kill(*random.sample(SERVERS, len(SERVERS)))
        assert shared.up().healthy
        assert shared.holds("first")
        assert shared.holds(f"round_{attempt}")


@pytest.mark.parametrize("server", ["prefect", "idc-objects", "idc-database"])
def test_a_suspended_server_is_found_and_restarted(shared: Installation, server: str) -> None:
    shared.up()
    before = shared.pids()[server]
    os.kill(before, signal.SIGSTOP)
    assert status(shared.home)[server].state is State.UNHEALTHY
    assert shared.up().healthy
    assert shared.pids()[server] != before
    assert shared.holds("first")


def test_two_commands_at_once_do_the_work_once(light: Installation) -> None:
    light.kill(*LIGHT)
    both = [subprocess.Popen(command(light.home, *LIGHT), env=environment(), stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("all 2 servers are running" in output for output in outputs) == 1
    assert len([pid for pid in light.every_pid() if _is_program(pid, "weed")]) == 1


def _is_program(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() == name


def test_two_installations_side_by_side_share_nothing(light: Installation, tmp_path: Path) -> None:
    light.write("here")
    for other in started(tmp_path / "other", LIGHT):
        other.write("there")
        assert not set(load_ports(light.home).values()) & set(load_ports(other.home).values())
        assert not light.every_pid() & other.every_pid()
        down(other.home, progress=lambda _: None)
        assert light.up().healthy
        assert light.holds("here")


def test_down_stops_all_keeps_data_and_is_quiet_the_second_time(light: Installation) -> None:
    light.write("kept")
    pids = light.every_pid()
    lines: list[str] = []
    down(light.home, progress=lines.append)
    assert not [pid for pid in pids if _runs(pid)]
    assert len(lines) == len(LIGHT)
    assert {service.state for service in status(light.home).services} == {State.STOPPED}
    lines.clear()
    down(light.home, progress=lines.append)
    assert lines == []
    assert light.up().healthy
    assert light.holds("kept")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_remove_leaves_neither_process_nor_file(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "home", LIGHT)
    installation.up()
    pids = installation.every_pid()
    ports = load_ports(installation.home).values()
    remove(installation.home)
    assert not installation.home.path.exists()
    assert not [pid for pid in pids if _runs(pid)]
    sockets = [path.stem.rpartition("-")[2] for path in Path("/tmp").glob("seaweedfs-*.sock")]
    assert not {str(port) for port in ports} & set(sockets)


def test_the_ports_stay_and_a_stolen_one_is_named_and_replaced(light: Installation) -> None:
    light.write("kept")
    before = load_ports(light.home)
    down(light.home, progress=lambda _: None)
    light.up()
    assert load_ports(light.home) == before
    down(light.home, progress=lambda _: None)
    stolen = {name: before[name] for name in ("IDC_OBJECTS_PORT", "IDC_DATABASE_PORT")}
    thieves = [socket.create_server(("127.0.0.1", port)) for port in stolen.values()]
    try:
        assert light.up().healthy
    finally:
        for thief in thieves:
            thief.close()
    for port in stolen.values():
        assert any(f"port {port} is taken by" in line for line in light.lines)
        assert str(port) not in light.home.estate_file.read_text()
    assert light.holds("kept")


def test_a_lost_ports_file_moves_the_servers_and_keeps_the_data(light: Installation) -> None:
    light.write("kept")
    old = light.every_pid()
    light.home.ports_file.unlink()
    assert light.up().healthy
    assert not [pid for pid in old if _runs(pid)]
    assert light.holds("kept")


def test_lost_records_do_not_leave_strays_behind(light: Installation) -> None:
    light.write("kept")
    old = light.every_pid()
    for name in LIGHT:
        light.home.record(name).unlink()
    assert light.up().healthy
    assert not [pid for pid in old if _runs(pid)]
    assert light.holds("kept")


def test_a_lost_credentials_file_is_an_error_and_nothing_is_made_anew(light: Installation) -> None:
    kept = light.home.secrets_file.rename(light.home.path / "safe")
    with pytest.raises(SecretError, match="Restore the file"):
        light.up()
    assert not light.home.secrets_file.exists()
    kept.rename(light.home.secrets_file)
    assert light.up().healthy


def test_a_pid_that_was_reused_is_neither_believed_nor_killed(light: Installation) -> None:
    light.kill("idc-objects")
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        record = light.home.record("idc-objects")
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": bystander.pid}))
        assert status(light.home)["idc-objects"].state is State.DEAD
        assert light.up().healthy
        down(light.home, progress=lambda _: None)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_stale_postmaster_lock_with_a_reused_pid_does_not_stop_the_database(
    light: Installation,
) -> None:
    light.kill("idc-database")
    lock = light.home.data("idc-database") / "postmaster.pid"
    wait_for(lambda: status(light.home)["idc-database"].state is State.DEAD)
    owner = light.home.data("idc-database").stat()
    bystander = subprocess.Popen(["sleep", "300"], user=owner.st_uid if os.geteuid() == 0 else None)
    try:
        lines = lock.read_text().split("\n")
        lock.write_text("\n".join([str(bystander.pid), *lines[1:]]))
        assert light.up().healthy
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_backends_without_their_postmaster_do_not_hold_the_database(light: Installation) -> None:
    light.write("kept")
    with light.database() as busy:
        pid = busy.info.backend_pid
        os.kill(pid, signal.SIGSTOP)  # an orphan that cannot notice its postmaster's death
        light.kill("idc-database")
        wait_for(lambda: status(light.home)["idc-database"].state is State.DEAD)
        assert _runs(pid)
        assert light.up().healthy
        assert not _runs(pid)
        busy.close()
    assert light.holds("kept")


def test_up_killed_at_any_moment_of_the_first_start_is_continued(tmp_path: Path) -> None:
    random.seed(7)
    for attempt, delay in enumerate(sorted(random.uniform(0.2, 2.2) for _ in range(6))):
        installation = Installation(tmp_path / str(attempt), LIGHT)
        try:
            first = subprocess.Popen(
                command(installation.home, *LIGHT), env=environment(), start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(delay)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            assert installation.up().healthy
            installation.write("after")
            assert installation.holds("after")
        finally:
            remove(installation.home)


def test_a_server_that_cannot_start_fails_with_its_log_and_without_secrets(
    light: Installation,
) -> None:
    down(light.home, progress=lambda _: None)
    version = light.home.data("idc-database") / "PG_VERSION"
    right = version.read_text()
    version.write_text("7\n")
    with pytest.raises(ServiceError) as raised:
        light.up()
    message = str(raised.value)
    assert "idc-database" in message
    assert str(light.home.log("idc-database")) in message
    assert "FATAL" in message
    assert "causeway up" in message
    assert not [secret for secret in load_secrets(light.home).values() if secret in message]
    assert status(light.home)["idc-objects"].state is State.RUNNING
    version.write_text(right)
    assert light.up().healthy


def test_logs_begin_anew_at_each_start_and_one_old_one_is_kept(light: Installation) -> None:
    down(light.home, progress=lambda _: None)
    log = light.home.log("idc-objects")
    log.write_bytes(b"x" * 5_000_000 + b"the end of the last run\n")
    light.up()
    old = log.with_name(f"{log.name}.1")
    assert old.read_bytes().endswith(b"the end of the last run\n")
    assert old.stat().st_size <= 1_000_000
    assert log.stat().st_size < 1_000_000


def test_an_ordinary_user_brings_it_up_without_rights() -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already: every other test shows it")
    folder = Path("/tmp") / f"causeway-ordinary-{os.getpid()}"
    folder.mkdir(mode=0o755)
    home = Home(folder / "theirs" / "home")
    home.path.parent.mkdir()
    os.chown(home.path.parent, 65534, 65534)
    try:
        python = _python_for_everybody(folder / "python")
        variables = _variables_for_everybody(python) | {"HOME": str(home.path.parent)}
        try:
            done = subprocess.run(
                [*ORDINARY, *command(home, *SERVERS, python=python)], env=variables, cwd="/",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=150, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            pids = [_record_pid(home, name) for name in SERVERS]
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {65534}
            assert {path.stat().st_uid for path in home.path.rglob("*")} == {65534}
        finally:
            code = "import sys, deployments.embedded as e; e.remove(e.Home(sys.argv[1]))"
            subprocess.run([*ORDINARY, python, "-c", code, str(home.path)], env=variables, cwd="/", check=True)
    finally:
        shutil.rmtree(folder)


def _record_pid(home: Home, name: str) -> int:
    record = read_record(home.record(name))
    assert record is not None
    return record.process.pid


def _variables_for_everybody(python: str) -> dict[str, str]:
    found = importlib.util.find_spec("psycopg")
    assert found is not None
    assert found.origin is not None
    packages = str(Path(found.origin).parents[1])
    return environment(
        PYTHONPATH=os.pathsep.join([str(ROOT), packages]),
        LD_LIBRARY_PATH=str(Path(python).parents[1] / "lib"),
    )


def _python_for_everybody(folder: Path) -> str:
    """Return an interpreter that others may run: this one, or a copy of it in `folder`."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, library = Path(sys.base_prefix), Path("lib") / name
    if _runs_for_everybody(sys.executable):
        return sys.executable
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*", "idlelib")
    shutil.copytree(base / library, folder / library, ignore=ignored)
    for shared_library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(shared_library, folder / "lib")
    (folder / "bin").mkdir()
    copy = shutil.copy(Path(sys.executable).resolve(), folder / "bin" / name)
    if _runs_for_everybody(str(copy)):
        return str(copy)
    pytest.skip("an ordinary user can reach neither this Python and its packages nor a copy of it")


def _runs_for_everybody(python: str) -> bool:
    # A child of its own too: root's rights may last for the first program only.
    code = (
        "import subprocess, sys, psycopg, pydantic, deployments.embedded;"
        "subprocess.run([sys.executable, '-c', ''], check=True)"
    )
    found = subprocess.run(
        [*ORDINARY, python, "-c", code],
        env=_variables_for_everybody(python), cwd="/", capture_output=True, check=False,
    )  # fmt: skip
    return found.returncode == 0
