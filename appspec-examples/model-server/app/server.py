#!/usr/bin/env python3
"""Serves the model in the folder MODEL over HTTP: server.py MODEL. HOST and PORT come from the environment.

GET /health     {"status": "ok", "model": VERSION}; VERSION is the name of the folder that MODEL links to
POST /predict   {"instances": [{"length_mm": 18.9, "diameter_mm": 6.2, "mass_g": 3.4}, ...]}
                -> {"model": VERSION, "predictions": [{"kind": "rivet", "probability": 0.93}, ...]}
"""

import json
import math
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from classifier import predict

LARGEST_REQUEST = 1 << 20


class BadRequest(Exception):
    """The request is not one; the message tells its sender why."""


def measurements(model, instance):
    try:
        values = [float(instance[name]) for name in model["features"]]
    except (KeyError, TypeError, ValueError):
        raise BadRequest(f"each instance needs the numbers {', '.join(model['features'])}") from None
    if not all(map(math.isfinite, values)):
        raise BadRequest("measurements must be finite")
    return values


class Handler(BaseHTTPRequestHandler):
    timeout = 30
    model = None
    version = None

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok", "model": self.version})
        else:
            self.answer(404, {"error": "GET /health or POST /predict"})

    def do_POST(self):
        if self.path != "/predict":
            self.answer(404, {"error": "GET /health or POST /predict"})
            return
        try:
            predictions = [predict(self.model, measurements(self.model, one)) for one in self.instances()]
        except BadRequest as error:
            self.answer(400, {"error": str(error)})
        else:
            self.answer(200, {"model": self.version, "predictions": predictions})

    def instances(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_REQUEST:
            self.close_connection = True
            raise BadRequest(f"a Content-Length of at most {LARGEST_REQUEST} is needed")
        try:
            instances = json.loads(self.rfile.read(int(length)))["instances"]
        except (KeyError, TypeError, ValueError):
            raise BadRequest('the body must be JSON: {"instances": [...]}') from None
        if not isinstance(instances, list):
            raise BadRequest('"instances" must be a list')
        return instances

    def answer(self, status, content):
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    folder = Path(sys.argv[1]).resolve()
    Handler.model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    Handler.version = folder.name
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8090")))
    ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
