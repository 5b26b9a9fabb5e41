"""The archive for systems without a package manager: the files of the Debian package, and a script that installs them."""

import gzip
import io
import tarfile

from workspace import ROOT

# Before the first member's name: "!<arch>\n".
AR_MAGIC = b"!<arch>\n"


def members(deb):
    """The name and the bytes of each member of a Debian package, which is an ar archive."""
    data = deb.read_bytes()
    if not data.startswith(AR_MAGIC):
        raise ValueError(f"{deb} is not a Debian package")
    offset = len(AR_MAGIC)
    while offset < len(data):
        header = data[offset:offset + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), data[offset + 60:offset + 60 + size]
        offset += 60 + size + size % 2


def conffiles(control):
    """The paths that the control archive of a Debian package lists as configuration."""
    with tarfile.open(fileobj=io.BytesIO(control)) as tar:
        names = {name.removeprefix("./"): name for name in tar.getnames()}
        if "conffiles" not in names:
            return b""
        return tar.extractfile(names["conffiles"]).read()


def entry(name, mode, mtime, size=0):
    """A file's header, which names no user of the machine that made the archive."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.size = mode, mtime, size
    info.uname = info.gname = "root"
    return info


def add(tar, name, data, mode, mtime):
    tar.addfile(entry(name, mode, mtime, len(data)), io.BytesIO(data))


def write(deb, what, version, target, mtime, level):
    """Writes the archive `target` of the package `what` from its Debian package."""
    top = target.name.removesuffix(".tar.gz")
    found = {name.split(".tar")[0]: data for name, data in members(deb)}
    # A gzip header without name and time, so that equal contents have equal bytes.
    with open(target, "wb") as raw, \
            gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=raw, mtime=mtime) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folder = entry(top, 0o755, mtime)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        install = (ROOT / "packaging/install").read_bytes()
        install = install.replace(b"@NAME@", f"codedeploy-{what}".encode()).replace(b"@VERSION@", version.encode())
        add(tar, f"{top}/install", install, 0o755, mtime)
        add(tar, f"{top}/conffiles", conffiles(found["control"]), 0o644, mtime)
        for script in sorted((ROOT / f"packaging/{what}/rpm").iterdir()):
            add(tar, f"{top}/scripts/{script.name}", script.read_bytes(), 0o755, mtime)
        with tarfile.open(fileobj=io.BytesIO(found["data"])) as data:
            for info in data:
                name = info.name.removeprefix("./").rstrip("/")
                if not name:
                    continue
                # Units that belong to no package are the administrator's.
                name = name.replace("lib/systemd/system", "etc/systemd/system", 1)
                if name in ("lib", "lib/systemd") or name.startswith("usr/share/lintian"):
                    continue
                info.name = f"{top}/files/{name}"
                info.uid = info.gid = 0
                info.uname = info.gname = "root"
                tar.addfile(info, data.extractfile(info) if info.isreg() else None)
