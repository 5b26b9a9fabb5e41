"""The compiler and linker for each target: zig as C compiler and linker, so that any machine builds for an old glibc."""

import os
import pathlib

import debian
from workspace import ROOT, commit, output, run

# What every distribution has that these packages are for: Amazon Linux 2 (2.26) and RHEL 7 (2.17) are the oldest.
GLIBC = (2, 17)

TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}

FEATURES = "codedeploy-agent/lean"
# With frame pointers, tables for unwinding are a quarter smaller, and profilers see every caller.
RUSTFLAGS = ["-C", "force-frame-pointers=yes"]
# Without AWS-LC's forms of X25519, Ed25519 and RSA for newer processors: 0.4 MB, for a handshake that is a little faster.
# AES stays in hardware.
CFLAGS = {"x86_64": ["-DMY_ASSEMBLER_IS_TOO_OLD_FOR_ADX_AVX2"], "aarch64": []}

AUDITABLE = "0.7.7"


def tools():
    """The folder of nfpm, cargo-zigbuild, zig and cargo-auditable, which are installed once."""
    folder = pathlib.Path(output(ROOT / "packaging/tools", "cross").strip())
    if not (folder / "cargo-auditable").exists():
        run("cargo", "install", "--locked", "--quiet", "--root", folder.parent, "--version", AUDITABLE, "cargo-auditable")
    return folder


def environment(machine, folder, target_dir):
    """The variables with which cargo compiles for a machine into a folder, with programs from `folder`."""
    variables = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CODEDEPLOY_COMMIT": commit()}
    if not has_standard_library(TARGETS[machine]):
        variables |= debians_compiler(machine, folder.parent / "rust-web")
    # No path of this machine in the programs: neither of its own sources nor of crates, nor in messages of C code.
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    renamed = {str(home): "/cargo", str(ROOT): "/codedeploy", str(target_dir): "/target", sysroot(variables): "/rust"}
    variables["RUSTFLAGS"] = " ".join(RUSTFLAGS + [f"--remap-path-prefix={old}={new}" for old, new in renamed.items()])
    name = TARGETS[machine].replace("-", "_")
    variables[f"CFLAGS_{name}"] = " ".join(
        CFLAGS[machine] + [f"-ffile-prefix-map={old}={new}" for old, new in renamed.items()])
    return variables


def sysroot(variables):
    return output(variables.get("RUSTC", "rustc"), "--print", "sysroot", env=variables).strip()


def has_standard_library(target):
    return (pathlib.Path(sysroot(dict(os.environ))) / "lib/rustlib" / target / "lib").exists()


def debians_compiler(machine, folder):
    """Debian's own rustc with the standard library for a machine, for where rustup has no target to offer."""
    ready = folder / f"ready-{machine}"
    if not ready.exists():
        host = output("dpkg", "--print-architecture").strip()
        found = debian.fetch(["rustc-web", "libstd-rust-web-dev"], host, folder)
        release = ".".join(found["rustc-web"].split(".")[:2])
        debian.fetch([f"libstd-rust-web-{release}"], host, folder)
        debian.fetch([f"libllvm{llvm(driver(folder))}"], host, folder)
        debian.fetch(["libstd-rust-web-dev"], DEBIAN[machine], folder)
        ready.touch()
    return {"RUSTC": str(folder / "usr/bin/rustc"), "LD_LIBRARY_PATH": str(driver(folder).parent)}


def driver(folder):
    """The library that is the compiler."""
    found = sorted((folder / "usr/lib").glob("*/librustc_driver-*.so"))
    if not found:
        raise OSError(f"{folder} has no librustc_driver; remove the folder and run this again")
    return found[0]


def llvm(library):
    """The release of the LLVM that the compiler was linked with."""
    for line in output("objdump", "-p", library).splitlines():
        if "NEEDED" in line and "libLLVM" in line:
            return line.split("libLLVM.so.")[1].split(".")[0]
    raise OSError(f"{library} names no LLVM that it needs")
