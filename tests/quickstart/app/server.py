"""Serves the version it was deployed as; /healthz says whether it is well."""

import http.server
import pathlib
import sys

VERSION = pathlib.Path(__file__).with_name("VERSION").read_text().strip()
HEALTHY = VERSION != "3"


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = HEALTHY or self.path != "/healthz"
        body = f"Hello from version {VERSION}\n" if well else "cannot reach the database\n"
        self.send_response(200 if well else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
