"""A replica's own HTTP server: uvicorn on uvloop and httptools, in a thread of the replica.

Why not Serve's proxy: with a trivial application, one row and 16 connections, 2 cores carried 230
requests/s through Serve's proxy, 2,400 to 3,400 through HAProxy, 4,700 to 5,600 through direct
ingress, and 34,000 through a listener of the replica's own. It needs no environment variables, each
project has a port of its own, and Serve still places, watches, scales and replaces the replicas.
Replicas on one node share the port (SO_REUSEPORT): the kernel spreads connections over them.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import TYPE_CHECKING

from mlray.errors import ServingError

if TYPE_CHECKING:
    from mlray.serving.asgi import Api

BACKLOG = 2048
START_S = 10.0
GRACE_S = 10
CLOSING_S = 0.5


def port_in_use(host: str, port: int) -> ServingError:
    return ServingError(
        f"port {port} on {host} is in use",
        do="set serving.port to a free one, or end the program that listens there "
        f"(`ss -ltnp 'sport = :{port}'` names it)",
    )


def check_port(host: str, port: int) -> None:
    """Raise `ServingError` unless this machine can listen on `host:port`; leaves nothing open."""
    _bound(host, port, shared=False).close()


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
        if not shared:
            listening.listen(1)  # the kernel may find a rival only now
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise port_in_use(host, port) from None
        raise ServingError(
            f"cannot listen on {host}:{port} ({error.strerror})",
            do="set serving.host to an address of this machine, and serving.port above 1023",
        ) from error
    return listening


class Listener:
    """The HTTP API on `host:port`, from `start` to `stop`."""

    def __init__(self, app: Api, host: str, port: int):
        import uvicorn

        self._socket = _bound(host, port, shared=True)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,  # longer than the idle time of usual load balancers (60 s)
            timeout_graceful_shutdown=GRACE_S,
        )
        self._app, self._server = app, uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="mlray-http", daemon=True)

    def start(self) -> None:
        """Listen; returns when connections are accepted."""
        self._thread.start()
        until = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise ServingError("the HTTP server did not start", do="see the replica's log")
            time.sleep(0.005)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept nothing more, answer what is under way (at most 10 s), close.

        For a moment each answer says `connection: close`: a client that learned it from an answer
        goes elsewhere with its next request, one that is cut off in silence may lose that request.
        """
        self._app.closing = True
        for accepting in self._server.servers:
            accepting.get_loop().call_soon_threadsafe(accepting.close)
        time.sleep(CLOSING_S)
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(GRACE_S + 1)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
