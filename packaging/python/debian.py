"""Files of Debian's packages for any architecture, unpacked into a folder: nothing is installed."""

import pathlib
import re
import tempfile

from workspace import run


def fetch(names, architecture, folder):
    """Downloads packages for an architecture from this system's sources, signed as its apt wants, and unpacks them."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for name in ("state/lists/partial", "cache/archives/partial", "debs"):
            (work / name).mkdir(parents=True)
        (work / "state/status").touch()
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Dir::State": work / "state",
            "Dir::State::status": work / "state/status",
            "Dir::Cache": work / "cache",
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        run("apt-get", *options, "--quiet=2", "update")
        run("apt-get", *options, "--quiet=2", "download", *names, cwd=work / "debs")
        found = sorted((work / "debs").glob("*.deb"))
        for deb in found:
            run("dpkg-deb", "--extract", deb, folder)
        # The version of each, as the file's name has it; a colon is written as %3a there.
        return dict(re.match(r"(.*?)_(.*)_", deb.name.replace("%3a", ":")).groups() for deb in found)
