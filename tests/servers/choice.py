"""The S3 servers that a runner can be started against, by name, and fresh buckets on one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

import boto3
from moto.server import ThreadedMotoServer

from tests.servers import ceph
from tests.servers.network import Proxy


@contextlib.contextmanager
def moto() -> Iterator[ceph.S3Server]:
    """The server in this process, for machines without a real one."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield ceph.S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


SERVERS = {"ceph": ceph.running, "moto": moto}


@contextlib.contextmanager
def serving(name: str) -> Iterator[ceph.S3Server]:
    """A server that runs, and whose credentials this process and its children have."""
    with SERVERS[name]() as server:
        os.environ["AWS_ACCESS_KEY_ID"] = server.access_key
        os.environ["AWS_SECRET_ACCESS_KEY"] = server.secret_key
        yield server


def make_buckets(endpoint: str, proxies: Sequence[Proxy], name: str) -> list[str]:
    """One new bucket for each proxy; their URLs, as objfs writes them, lead through the proxies."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    with contextlib.closing(client):
        for number in range(len(proxies)):
            client.create_bucket(Bucket=f"{name}-{number}")
    return [
        f"s3://{name}-{number}/v?endpoint={proxy.endpoint}&region=us-east-1&path_style=1"
        for number, proxy in enumerate(proxies)
    ]
