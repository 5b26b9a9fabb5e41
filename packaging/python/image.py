"""The container image of the controller, as an OCI layout in one archive: from scratch, for both architectures."""

import datetime
import gzip
import hashlib
import io
import json
import pathlib
import tarfile
import tempfile

import debian
from archive import add, entry

# Programs that log in elsewhere, and folders with many files that a server never reads, are not in these packages.
LIBRARIES = ("libc6", "libgcc-s1")

USER = 65532
STATE = "/var/lib/codedeploy-controller"

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n"
                  f"codedeploy-controller:x:{USER}:{USER}:codedeploy-controller:{STATE}:/sbin/nologin\n",
    "etc/group": f"root:x:0:\ncodedeploy-controller:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # Every address, because a container's loopback is its own.
    "etc/codedeploy-controller/controller.yml": "listen: 0.0.0.0:7080\ntls: {self_signed: true}\n"
                                                "region: us-east-1\naccount_id: \"123456789012\"\n",

}


def folders(tar, names, mtime):
    for name in names:
        folder = entry(name, 0o755, mtime)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)


def ground(architecture, mtime):
    """The layer with the C library, the certificate authorities and the names of users; seldom changes."""
    with tempfile.TemporaryDirectory() as work:
        root = pathlib.Path(work)
        debian.fetch([*LIBRARIES, "ca-certificates"], architecture, root)
        authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
        bundle = b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in authorities)
        libraries = [path for top in ("lib", "lib64", "usr/lib") for path in sorted((root / top).rglob("*"))
                     if path.name.startswith(("ld-linux", "libc.so", "libm.so", "libgcc_s.so", "libnss_", "libresolv.so",
                                              "libdl.so", "libpthread.so", "librt.so"))]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            made = set()
            for path in libraries:
                name = path.relative_to(root)
                parents = [str(parent) for parent in reversed(name.parents) if str(parent) != "." and parent not in made]
                folders(tar, parents, mtime)
                made.update(name.parents)
                if path.is_symlink():
                    link = entry(str(name), 0o777, mtime)
                    link.type, link.linkname = tarfile.SYMTYPE, str(path.readlink())
                    tar.addfile(link)
                elif path.is_file():
                    add(tar, str(name), path.read_bytes(), 0o755, mtime)
            folders(tar, ["etc", "etc/ssl", "etc/ssl/certs", "etc/codedeploy-controller"], mtime)
            add(tar, "etc/ssl/certs/ca-certificates.crt", bundle, 0o644, mtime)
            for name, text in FILES.items():
                add(tar, name, text.encode(), 0o644, mtime)
            temporary = entry("tmp", 0o1777, mtime)
            temporary.type = tarfile.DIRTYPE
            tar.addfile(temporary)
            folders(tar, ["var", "var/lib"], mtime)
            state = entry(STATE[1:], 0o700, mtime)
            state.type, state.uid, state.gid = tarfile.DIRTYPE, USER, USER
            state.uname = state.gname = ""
            tar.addfile(state)
        return buffer.getvalue()


def program(binary, notices, mtime):
    """The layer with the controller."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders(tar, ["usr", "usr/bin", "usr/share", "usr/share/doc", "usr/share/doc/codedeploy-controller"], mtime)
        add(tar, "usr/bin/codedeploy-controller", binary.read_bytes(), 0o755, mtime)
        add(tar, "usr/share/doc/codedeploy-controller/THIRD-PARTY-NOTICES", notices.encode(), 0o644, mtime)
    return buffer.getvalue()


class Layout:
    """The blobs of an image, each under its digest."""

    def __init__(self):
        self.blobs = {}

    def put(self, data, kind, **more):
        """Keeps a blob; returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data), **more}

    def json(self, value, kind, **more):
        return self.put(json.dumps(value, sort_keys=True).encode(), kind, **more)


def add_architecture(layout, architecture, layers, version, when):
    labels = {
        "org.opencontainers.image.title": "codedeploy-controller",
        "org.opencontainers.image.description": "Self-hosted service with the APIs of AWS CodeDeploy",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": version,
    }
    config = layout.json({
        "architecture": architecture,
        "os": "linux",
        "created": when,
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": ["/usr/bin/codedeploy-controller"],
            "Cmd": ["serve", "--config-file", "/etc/codedeploy-controller/controller.yml"],
            "Env": ["PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "ExposedPorts": {"7080/tcp": {}},
            "Volumes": {STATE: {}},
            "WorkingDir": STATE,
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": when, "created_by": "packaging/release"} for _ in layers],
    }, "config.v1+json")
    packed = [layout.put(gzip.compress(layer, 9, mtime=0), "layer.v1.tar+gzip") for layer in layers]
    return layout.json({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": packed, "annotations": labels,
    }, "manifest.v1+json", platform={"architecture": architecture, "os": "linux"})


def write(binaries, notices, version, target, mtime):
    """Writes the archive of an image; `binaries` has the controller by Debian's name of the architecture."""
    layout = Layout()
    when = datetime.datetime.fromtimestamp(mtime, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifests = [add_architecture(layout, architecture, [ground(architecture, mtime), program(binary, notices, mtime)],
                                  version, when)
                 for architecture, binary in binaries.items()]
    index = layout.json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                         "manifests": manifests}, "index.v1+json",
                        annotations={"org.opencontainers.image.ref.name": f"codedeploy-controller:{version}",
                                      "io.containerd.image.name": f"localhost/codedeploy-controller:{version}"})
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644, mtime)
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [index]}).encode(), 0o644, mtime)
        for digest, data in sorted(layout.blobs.items()):
            add(tar, f"blobs/sha256/{digest}", data, 0o644, mtime)
    return target
