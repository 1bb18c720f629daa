"""The embedded estate's own files and arithmetic, without any server."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from connectors.errors import EstateError, FixableError, SecretError, ServiceError
from deployments.embedded import Home, State, ports, postgres, rendering, status
from deployments.embedded.probes import http_ok, pid_written
from deployments.embedded.process import Process, command_name, read_record, spawn, stop
from deployments.embedded.secrets import NAMES, ensure_secrets, load_secrets
from deployments.embedded.services import describe


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "installation")
    home.create()
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_installation_is_its_owners_alone(home: Home) -> None:
    ensure_secrets(home)
    assert mode(home.path) == 0o700
    assert mode(home.secrets_file) == 0o600


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FixableError, match="no installation"):
        Home(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_deleting_keeps_what_the_installation_did_not_make(home: Home) -> None:
    (home.path / "thesis.txt").write_text("years of work")
    ensure_secrets(home)
    home.delete()
    assert [path.name for path in home.path.iterdir()] == ["thesis.txt"]


def test_credentials_are_generated_once_and_differ_from_each_other(home: Home) -> None:
    first = ensure_secrets(home)
    assert ensure_secrets(home) == first
    assert set(first) == set(NAMES)
    assert len(set(first.values())) == len(NAMES)


def test_lost_credentials_are_not_replaced_while_servers_hold_data(home: Home) -> None:
    home.data("idc-objects").mkdir()
    with pytest.raises(SecretError, match="does not exist"):
        ensure_secrets(home)
    assert not home.secrets_file.exists()


def test_a_torn_credentials_file_is_an_error_that_does_not_quote_it(home: Home) -> None:
    home.secrets_file.write_text('{"BUSINESS_PASSWORD": "correct horse')
    with pytest.raises(SecretError) as raised:
        load_secrets(home)
    assert "horse" not in str(raised.value)


def test_ports_stay_the_same_while_nobody_takes_them(home: Home) -> None:
    first, _ = ports.ensure_ports(home, unused=())
    assert ports.ensure_ports(home, unused=ports.GROUPS) == (first, [])


def test_all_ports_and_their_grpc_twins_differ_and_lie_below_the_outgoing_range(home: Home) -> None:
    chosen, _ = ports.ensure_ports(home, unused=())
    numbers = [*chosen.values(), *(port + ports.GRPC_OFFSET for port in chosen.values())]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 32_768


@pytest.mark.parametrize("offset", [0, ports.GRPC_OFFSET])
def test_a_taken_port_moves_its_group_only_and_the_taker_is_named(home: Home, offset: int) -> None:
    before, _ = ports.ensure_ports(home, unused=())
    with socket.create_server(("127.0.0.1", before["IDC_OBJECTS_FILER_PORT"] + offset)):
        after, moves = ports.ensure_ports(home, unused=ports.GROUPS)
    moved = {name for name in before if before[name] != after[name]}
    assert moved
    assert moved <= set(ports.GROUPS["idc-objects"])
    assert f"pid {os.getpid()}" in moves[0]
    assert ports.load_ports(home) == after


def test_a_taken_port_of_a_running_server_is_its_own(home: Home) -> None:
    before, _ = ports.ensure_ports(home, unused=())
    with socket.create_server(("127.0.0.1", before["PREFECT_PORT"])):
        assert ports.ensure_ports(home, unused={"idc-objects"}) == (before, [])


def test_listeners_are_read_with_their_addresses() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        inode = os.fstat(server.fileno()).st_ino
        expected = ports.Listener("127.0.0.2", server.getsockname()[1], inode)
        assert expected in ports.listeners()
        assert inode in ports.socket_inodes(os.getpid())


def test_ipv6_listeners_are_read_with_their_addresses() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        assert ("::1", server.getsockname()[1]) in [(one.address, one.port) for one in ports.listeners()]


def test_a_template_keeps_lone_dollars_and_fills_in_names() -> None:
    text = "url: http://127.0.0.1:${PORT}\nregex: '^[A-Z]{2}$'\n"
    assert rendering.substitute(text, {"PORT": "80"}, "here") == text.replace("${PORT}", "80")


def test_unknown_variables_of_a_template_are_all_named_with_the_choices() -> None:
    with pytest.raises(EstateError, match=r"here.*unknown variables: NOPE, OTHER.*Known: PORT"):
        rendering.substitute("${OTHER} ${PORT} ${NOPE}", {"PORT": "80"}, "here")


def test_the_estate_is_rendered_with_ports_and_not_rewritten_without_need(home: Home) -> None:
    chosen, _ = ports.ensure_ports(home, unused=())
    rendering.render_files(home, chosen)
    before = home.estate_file.stat()
    rendering.render_files(home, chosen)
    assert home.estate_file.stat().st_ino == before.st_ino
    assert str(chosen["IDC_OBJECTS_PORT"]) in home.estate_file.read_text()
    assert str(home.path) in home.env_file.read_text()


def test_no_command_line_and_no_representation_holds_a_secret(home: Home) -> None:
    secrets = ensure_secrets(home)
    chosen, _ = ports.ensure_ports(home, unused=())
    for service in describe(home, chosen, secrets).values():
        shown = repr(service) + " ".join(service.command)
        assert not [name for name, value in secrets.items() if value in shown]


def test_the_status_of_a_folder_that_does_not_exist_is_all_stopped(tmp_path: Path) -> None:
    found = status(Home(tmp_path / "nothing"))
    assert {service.state for service in found.services} == {State.STOPPED}
    assert not found.healthy
    assert not (tmp_path / "nothing").exists()


def test_a_password_verifier_is_the_one_of_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 7677, section 3: user "user", password "pencil".
    import base64

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    monkeypatch.setattr("secrets.token_bytes", lambda _: salt)
    assert postgres._verifier("pencil") == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_daemon_is_nobodys_child_and_is_recorded_before_it_runs(home: Home) -> None:
    home.data("idle").mkdir()
    process = spawn(
        "idle", ["sleep", "60"], {"PATH": os.defpath},
        folder=home.data("idle"), log=home.log("idle"),
        record=home.record("idle"), inputs={"port": "1"},
    )  # fmt: skip
    try:
        record = read_record(home.record("idle"))
        assert record is not None
        assert record.process == process
        assert record.inputs == {"port": "1"}
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(fields[1]) != os.getpid()
        assert mode(home.log("idle")) == mode(home.record("idle")) == 0o600
    finally:
        stop(process, list, soft=signal.SIGTERM, soft_seconds=5.0)
    assert not process.alive()


def test_a_program_that_does_not_exist_is_an_error_that_names_it(home: Home) -> None:
    home.data("idle").mkdir()
    with pytest.raises(ServiceError, match="No such file"):
        spawn(
            "idle", ["/no-such-program"], {}, folder=home.data("idle"), log=home.log("idle"),
            record=home.record("idle"), inputs={},
        )  # fmt: skip


def test_a_process_that_got_a_reused_pid_is_never_signalled() -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        stop(Process(bystander.pid, 1), list, soft=signal.SIGTERM, soft_seconds=0.1)
        assert bystander.poll() is None
        assert command_name(bystander.pid) == "sleep"
    finally:
        bystander.kill()
        bystander.wait()


def test_a_record_of_an_earlier_boot_names_no_process(home: Home) -> None:
    facts = {"pid": os.getpid(), "start_ticks": 1, "boot": "earlier", "inputs": {}}
    home.record("idle").write_text(json.dumps(facts))
    assert read_record(home.record("idle")) is None


def test_a_ready_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "flows.ready"
    assert pid_written(path, 7)(1.0) is not None
    path.write_text("6\n")
    assert "not 7" in str(pid_written(path, 7)(1.0))
    path.write_text("7\n")
    assert pid_written(path, 7)(1.0) is None


def test_a_refused_connection_is_an_answer_and_not_an_exception() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in str(http_ok(f"http://127.0.0.1:{port}/health")(1.0))
