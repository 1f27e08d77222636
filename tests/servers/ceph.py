"""A real Ceph object gateway on loopback, in memory: monitor, one OSD and radosgw, gone after use.

Owns the processes it starts, by pid, and one temporary directory.  Needs Debian's packages
radosgw, ceph-mon, ceph-osd and ceph-common.  The five settings that are not obvious: messages in
crc mode (secure mode hangs without cephx), TCP_NODELAY for the gateway (else 40 ms per small
GET), a short paxos interval (else the first start takes ten seconds), a short wait before what was
deleted is freed (else hours), and room for what ten minutes of load store: an OSD that is full lets every put
wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
ACCESS_KEY = "testing"
SECRET_KEY = "testingsecret"
START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class S3Server:
    """Where a server listens and who may use it."""

    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY


def missing_programs() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """Starts the three daemons, yields the address, ends exactly these processes."""
    home = Path(tempfile.mkdtemp(prefix="objfs-ceph-"))
    port, monitor_port = free_port(), free_port()
    (home / "ceph.conf").write_text(_configuration(home, port, monitor_port))
    try:
        _start(home, port, monitor_port)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        _stop(home)
        shutil.rmtree(home, ignore_errors=True)


def _configuration(home: Path, port: int, monitor_port: int) -> str:
    return f"""[global]
fsid = {uuid.UUID(int=monitor_port)}
mon_host = v2:127.0.0.1:{monitor_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
run_dir = {home}
admin_socket = {home}/$name.asok
log_file = {home}/$name.log
pid_file = {home}/$name.pid
crash_dir = {home}
keyring = {home}/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_pg_warn_min_per_osd = 0
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[mon]
mon_data = {home}/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 2
[osd]
osd_data = {home}/osd
osd_objectstore = memstore
memstore_device_bytes = 12884901888
memstore_page_set = true
osd_max_object_name_len = 460
osd_max_object_namespace_len = 64
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_enable_apis = s3, admin
rgw_dns_name = localhost
rgw_gc_obj_min_wait = 10
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
"""


def _start(home: Path, port: int, monitor_port: int) -> None:
    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, timeout=START_TIMEOUT_S, cwd=home)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-800:]}")

    conf = ("-c", str(home / "ceph.conf"))
    fsid = str(uuid.UUID(int=monitor_port))
    osd = str(uuid.uuid4())
    (home / "mon").mkdir()
    (home / "osd").mkdir()
    run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{monitor_port}]", "--fsid", fsid, "monmap")
    run("ceph-mon", *conf, "--mkfs", "-i", "a", "--monmap", "monmap")
    run("ceph-mon", *conf, "-i", "a")
    run("ceph", *conf, "--connect-timeout", "30", "osd", "new", osd)
    run("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
    run("ceph-osd", *conf, "-i", "0")
    user = ("--uid", "t", "--display-name", "t", "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
    run("radosgw-admin", *conf, "user", "create", *user)
    run("radosgw", *conf, "-n", "client.rgw")
    _wait_for_port(port)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)  # a server in another process gives no other sign
    raise RuntimeError(f"radosgw did not listen on port {port}")


def _stop(home: Path) -> None:
    pids = [int(file.read_text()) for file in home.glob("*.pid") if file.read_text().strip()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
