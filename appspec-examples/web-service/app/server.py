"""A small web service: `/` greets, `/health` says which version answers."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = (Path(__file__).resolve().parent / "VERSION").read_text(encoding="utf-8").strip()


class Handler(BaseHTTPRequestHandler):
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
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080")))
    ThreadingHTTPServer(address, Handler).serve_forever()
