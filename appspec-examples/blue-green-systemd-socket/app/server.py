"""A small web service that ends with grace: it answers what it has accepted.

It listens on 127.0.0.1:PORT, and on the sockets that systemd hands to it (sd_listen_fds(3)). `/` greets, `/health` says which version answers.
"""

import json
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = (Path(__file__).resolve().parent / "VERSION").read_text(encoding="utf-8").strip()
STOPPING = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds for which an idle connection is kept

    def do_GET(self):
        if self.path == "/":
            self.answer(200, "text/plain; charset=utf-8", f"Hello from version {VERSION}\n")
        elif self.path == "/health":
            self.answer(200, "application/json", json.dumps({"status": "ok", "version": VERSION}) + "\n")
        else:
            self.answer(404, "text/plain; charset=utf-8", "not found\n")

    def answer(self, status, content_type, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if STOPPING.is_set():
            # The client sends its next request on a new connection, to the other slot.
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # the end waits for them

    @classmethod
    def on(cls, listener):
        """A server on a socket that listens already."""
        server = cls(("", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listener
        # Both instances are woken for a connection, and one of them accepts it; see NonBlocking= in the unit.
        listener.setblocking(False)
        return server


def inherited():
    """The sockets from systemd; the first is descriptor 3."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    return [socket.socket(fileno=3 + index) for index in range(int(os.environ["LISTEN_FDS"]))]


def notify(state):
    """Tells systemd (sd_notify(3))."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(state.encode(), path.replace("@", "\0", 1))


def main():
    servers = [Server(("127.0.0.1", int(os.environ["PORT"])), Handler)]
    servers += [Server.on(listener) for listener in inherited()]

    # Blocked in every thread, so that the signal waits for sigwait().
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    notify("READY=1")
    signal.sigwait({signal.SIGTERM})
    STOPPING.set()
    for server in servers:
        server.shutdown()
    for server in servers:
        server.server_close()


main()
