"""Moto's S3 as a program: it prints its address when the bucket is there, and ends when its standard input does."""

import logging
import os
import sys

from tests.integration.crash.stores import make_bucket


def main() -> None:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    make_bucket(endpoint)
    print(endpoint, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
