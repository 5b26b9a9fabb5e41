# One door to what this project is built, tested and packaged with. Each recipe is one command, which works without just too.
# `apt install just` where Debian has it; `.ci/tools` installs it into target/tools/gate/bin.

[private]
default:
    @just --list --unsorted

# Build everything, for development
build *ARGS:
    cargo build --workspace --all-targets {{ ARGS }}

# Watch four deployments happen, in one temporary folder
quickstart *ARGS:
    cargo run --release --bin quickstart {{ ARGS }}

# Pass every test; `just test --long` leaves no system call out
test *ARGS:
    tests/run {{ ARGS }}

# Fuzz each parser for some seconds; `just fuzz TARGET SECONDS` one of them
fuzz *ARGS:
    fuzz/run {{ ARGS }}

# Do what has to pass before a change is merged
gate:
    .ci/run

# Format the code
fmt:
    cargo fmt --all

# Show every lint
lint:
    cargo clippy --workspace --all-targets --locked -- --deny warnings

# Check licences, banned crates and where crates come from
deny:
    PATH="$(.ci/tools):$PATH" cargo deny --locked check licenses bans sources

# Measure: `just bench` the agent, `just bench install` an Install, `just bench fleet` the controller
bench WHAT="agent" *ARGS:
    cargo run --release --bin {{ if WHAT == "agent" { "benchmark" } else { WHAT + "_benchmark" } }} -- {{ ARGS }}

# Build the Debian packages into target/debian
package:
    packaging/deb

# Write the manual pages and shell completions into target/manual
manual *ARGS:
    cargo run --locked --package codedeploy-manual -- {{ ARGS }}

# Make a release for x86-64 and arm64 in dist
release *ARGS:
    packaging/release {{ ARGS }}

# Build the documentation as a site into target/site
site:
    PATH="$(.ci/tools):$PATH" mdbook build docs
