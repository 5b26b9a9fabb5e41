# Functions for the hooks of this folder: the server as a background process, and which model it serves.
# shellcheck shell=sh

APP=/opt/model-server
STATE=/var/lib/model-server
LOG=/var/log/model-server/server.log
PID_FILE=$STATE/server.pid

HOST=127.0.0.1
PORT=8090
if [ -r /etc/default/model-server ]; then
    # shellcheck source=/dev/null
    . /etc/default/model-server
fi
export HOST PORT

# Whether process $1 is the server, and not a stranger that got its number after a restart of the host.
is_server() {
    [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF "$APP/server.py"
}

stop_server() {
    [ -s "$PID_FILE" ] || return 0
    pid=$(cat "$PID_FILE")
    if is_server "$pid"; then
        kill "$pid" 2>/dev/null || true
        tenths=100
        while is_server "$pid" && [ "$tenths" -gt 0 ]; do
            sleep 0.1
            tenths=$((tenths - 1))
        done
        if is_server "$pid"; then
            echo "process $pid did not end within 10 s: killing it" >&2
            kill -KILL "$pid" 2>/dev/null || true
        fi
    fi
    rm -f "$PID_FILE"
}

# A session of its own and no borrowed output: the server outlives the hook, and the hook ends without waiting for it.
start_server() {
    stop_server
    setsid /usr/bin/python3 -B "$APP/server.py" "$STATE/current" </dev/null >>"$LOG" 2>&1 &
    echo "$!" >"$PID_FILE"
}

# point NAME MODEL: the link NAME leads to MODEL from one moment to the next, never to nothing.
point() {
    ln -sfn "$2" "$STATE/.$1.new"
    mv -T "$STATE/.$1.new" "$STATE/$1"
}
