"""Files of Debian's packages for any architecture, unpacked into a folder: nothing is installed."""

import pathlib
import re
import tempfile

from workspace import output, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def fetch(names, architecture, folder, release=None):
    """Downloads packages for an architecture from this system's sources, signed as its apt wants, and unpacks them.

    `release` is the codename of another Debian, whose packages come from the same archive."""
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
        if release:
            sources = work / "sources.list"
            sources.write_text(f"deb [signed-by={KEYRING}] {archive()} {release} main\n")
            settings |= {"Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null"}
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        run("apt-get", *options, "--quiet=2", "update")
        run("apt-get", *options, "--quiet=2", "download", *names, cwd=work / "debs")
        found = sorted((work / "debs").glob("*.deb"))
        for deb in found:
            run("dpkg-deb", "--extract", deb, folder)
        # The version of each, as the file's name has it; a colon is written as %3a there.
        return dict(re.match(r"(.*?)_(.*)_", deb.name.replace("%3a", ":")).groups() for deb in found)


def archive():
    """The address of the archive that this system's packages come from."""
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(encoding="utf-8"), re.M)
    targets = output("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)").splitlines()
    found = [line.split()[1] for line in targets if release and line.split()[0] == release[1]]
    if not found:
        raise OSError("apt-get indextargets names no archive of this release; run apt-get update")
    return found[0]
