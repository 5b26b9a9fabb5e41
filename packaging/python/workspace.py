"""The project as its packages name it: its root, its version, and the time that its files carry."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The package of each program, and the programs in it: pages of the manual and completions go by these names.
PACKAGES = {
    "agent": ("codedeploy-agent", "codedeploy-local"),
    "controller": ("codedeploy-controller",),
}


def version():
    """The workspace's version, from the one place that names it."""
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    section = manifest.split("[workspace.package]", 1)[1].split("\n[", 1)[0]
    return re.search(r'^version = "(.*)"$', section, re.MULTILINE).group(1)


def epoch():
    """The seconds since 1970 that every file of a package carries: SOURCE_DATE_EPOCH, else the time of the commit."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    commit = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False)
    if commit.returncode == 0 and commit.stdout.strip():
        return int(commit.stdout)
    return int((ROOT / "CHANGELOG.md").stat().st_mtime)


def commit():
    """The commit that programs name in --version: CODEDEPLOY_COMMIT, else git's, marked if files differ from it; may be
    empty, in an archive of the sources."""
    if "CODEDEPLOY_COMMIT" in os.environ:
        return os.environ["CODEDEPLOY_COMMIT"]
    described = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--abbrev=12", "--exclude=*",
                                "--dirty=-modified"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return described.stdout.strip() if described.returncode == 0 else ""


def run(*command, **options):
    """Runs a command; one that fails ends this program with its own message."""
    try:
        return subprocess.run([str(part) for part in command], check=True, **options)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is missing; see packaging/README.md")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{pathlib.Path(command[0]).name} failed with status {error.returncode}")


def output(*command, **options):
    """The same; returns what the command prints."""
    return run(*command, stdout=subprocess.PIPE, text=True, **options).stdout
