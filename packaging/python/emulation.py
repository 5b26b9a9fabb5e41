"""A Debian for arm64 on a machine of another kind: its programs run emulated, in a root of their own."""

import contextlib
import pathlib
import shutil
import subprocess

import debian
from workspace import output, run

RELEASE = "bookworm"
# Emulators before 10 refuse prctl(PR_SET_CHILD_SUBREAPER), with which the agent watches scripts.
EMULATOR_FROM = "trixie"
# What scripts of deployments use beyond the packages that every Debian has.
MORE = ("procps",)

BINFMT = pathlib.Path("/proc/sys/fs/binfmt_misc")
NAME = "codedeploy-arm64"
# The first 20 bytes of a program for arm64, and those of them that count.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# P: the program gets its own name. F: the kernel opens the emulator now, so that no root needs a copy of it.
FLAGS = "PF"

# /lib and its like stay links into /usr.
UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar --extract --keep-directory-symlink --directory "$2"'

# Starts a command in a root that shares folders with this system, for it and its children alone.
ENTER = """set -e
root="$1" folder="$2"
shift 2
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
  shift
done
shift
exec unshare --root="$root" --wd="$folder" "$@"
"""


def system(tools):
    """The root of the Debian for arm64, which is made once; its packages are unpacked and not set up."""
    root = tools / "arm64/system"
    if root.exists():
        return root
    scratch = tools / "arm64/scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    run("debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", f"--include={','.join(MORE)}", RELEASE, scratch,
        stdout=subprocess.DEVNULL)
    archives = scratch / "var/cache/apt/archives"
    for package in sorted(archives.glob("*.deb")):
        run("sh", "-c", UNPACK, "sh", package, scratch)
        package.unlink()
    for name in ("passwd", "group"):
        shutil.copyfile(scratch / f"usr/share/base-passwd/{name}.master", scratch / "etc" / name)
    # In a container, debootstrap makes it a link to itself.
    proc = scratch / "proc"
    if proc.is_symlink():
        proc.unlink()
    proc.mkdir(exist_ok=True)
    scratch.chmod(0o755)
    return scratch.rename(root)


@contextlib.contextmanager
def emulator(tools):
    """The kernel starts all programs for arm64 with qemu, until the end of this."""
    folder = tools / "arm64/emulator"
    qemu = folder / "usr/bin/qemu-aarch64"
    if not qemu.exists():
        debian.fetch(["qemu-user"], output("dpkg", "--print-architecture").strip(), folder, EMULATOR_FROM)
    mounted = not (BINFMT / "register").exists()
    if mounted:
        run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    try:
        (BINFMT / "register").write_text(f":{NAME}:M::{MAGIC}:{MASK}:{qemu}:{FLAGS}", encoding="latin-1")
        try:
            yield
        finally:
            (BINFMT / NAME).write_text("-1", encoding="ascii")
    finally:
        if mounted:
            run("umount", BINFMT)


def inside(root, shared, folder):
    """The words before a command that run it in a root, beginning in `folder`, with folders of this system."""
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh", root, folder, *shared, "--")
