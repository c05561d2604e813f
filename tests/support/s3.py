"""A server on this machine that speaks S3's interface."""

import logging
from contextlib import contextmanager

import fsspec
import pytest


@contextmanager
def running_server():
    """Run a server: its (host, port). All servers of a process share what they hold."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


@contextmanager
def credentials(cache):
    """Have every client of this process know who it is, and keep its cache in a folder.

    Clients of an earlier server are forgotten.
    """
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("SEIT_CACHE_DIR", str(cache))
        yield patch


@contextmanager
def bucket(name, cache):
    """A file system with an empty bucket on a server that every client of this process finds."""
    with running_server() as address, credentials(cache) as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*address))
        filesystem = fsspec.filesystem("s3")
        if filesystem.exists(name):
            filesystem.rm(name, recursive=True)
        filesystem.mkdir(name)
        yield filesystem
