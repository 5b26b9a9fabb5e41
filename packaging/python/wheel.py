"""The wheel with codedeploy-local, so that Python's installers bring it into any pipeline: `uvx codedeploy-local validate`."""

import base64
import hashlib
import io
import time
import zipfile

from workspace import ROOT

METADATA = """Metadata-Version: 2.1
Name: codedeploy-local
Version: {version}
Summary: Validates AppSpec files and runs AWS CodeDeploy deployments on this machine
License: Apache-2.0
Requires-Python: >=3.7
Description-Content-Type: text/markdown

{description}
"""

DESCRIPTION = """# codedeploy-local

Checks AppSpec files for AWS CodeDeploy, shows what a deployment would change, and performs deployments on this machine
without a service:

    codedeploy-local validate
    codedeploy-local plan
    codedeploy-local deploy

It is one program for Linux, without dependencies. It is part of a project that is independent of AWS.
"""

WHEEL = """Wheel-Version: 1.0
Generator: codedeploy packaging/release
Root-Is-Purelib: false
Tag: py3-none-{platform}
"""


def platform(machine, glibc):
    """The platform tag: systems with this glibc or a later one."""
    return f"manylinux_{glibc[0]}_{glibc[1]}_{machine}"


def python_version(version):
    """A version as Python writes it: 1.2.0-rc.1 is 1.2.0rc1."""
    release, _, before = version.partition("-")
    return release + before.replace("alpha", "a").replace("beta", "b").replace(".", "")


def write(program, notices, version, tag, folder, mtime):
    """Writes the wheel into `folder`, and returns its path."""
    version = python_version(version)
    stem = f"codedeploy_local-{version}"
    info = f"{stem}.dist-info"
    files = [
        (f"{stem}.data/scripts/codedeploy-local", program.read_bytes(), 0o755),
        (f"{info}/METADATA", METADATA.format(version=version, description=DESCRIPTION).encode(), 0o644),
        (f"{info}/WHEEL", WHEEL.format(platform=tag).encode(), 0o644),
        (f"{info}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644),
        (f"{info}/licenses/THIRD-PARTY-NOTICES", notices.encode(), 0o644),
    ]
    record = "".join(f"{name},sha256={digest(data)},{len(data)}\n" for name, data, _ in files)
    files.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode(), 0o644))
    path = folder / f"{stem}-py3-none-{tag}.whl"
    # Times of a zip archive begin in 1980.
    when = time.gmtime(max(mtime, 315532800))[:6]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data, mode in files:
            entry = zipfile.ZipInfo(name, when)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, data)
    path.write_bytes(buffer.getvalue())
    return path


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
