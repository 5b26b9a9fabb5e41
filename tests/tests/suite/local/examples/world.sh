#!/bin/sh
# The first process of a world of its own: mounts, processes and network are private (see world.rs).
# world.sh STAGE PROGRAM SYSTEMCTL REPOSITORY TOOLS hides the host behind empty folders, then runs /mnt/command for
# each line that it reads, and answers with its exit status. When its input ends it ends, and every process with it.
# The folder of PROGRAM, the repository and the tests' tools are /mnt/programs, /mnt/repository and /mnt/tools.
set -eu
stage=$1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8

cp -a /etc "$stage/etc"
rm -rf "$stage/etc/codedeploy-agent" "$stage/etc/systemd/system"
mkdir -p "$stage/etc/systemd/system" "$stage/bin"
touch "$stage/bin/codedeploy-local" "$stage/bin/systemctl"
# Before the folders in which they may lie are hidden.
mount --bind "$2" "$stage/bin/codedeploy-local"
mount --bind "$3" "$stage/bin/systemctl"
mkdir "$stage/programs" "$stage/repository" "$stage/tools"
mount --bind "$(dirname "$2")" "$stage/programs"
mount --bind "$4" "$stage/repository"
mount --bind "$5" "$stage/tools"
mount --rbind "$stage" /mnt

mount --bind /mnt/etc /etc
for folder in /opt /run /srv /tmp /var; do
    mount -t tmpfs -o mode=0755 world "$folder"
done
chmod 1777 /tmp
# Nor does systemctl find the host's own units.
for units in /lib/systemd/system /usr/lib/systemd/system; do
    [ ! -d "$units" ] || mount -t tmpfs -o mode=0755 world "$units"
done
mkdir -p /var/lib /var/log /var/www
ln -s /run /var/run
# Whatever was not hidden cannot be written to.
mount -o remount,bind,ro /

ip link set lo up

cd /
PATH=/mnt/bin:$PATH
echo ready
while IFS= read -r _; do
    status=0
    sh -eu /mnt/command </dev/null >/mnt/output 2>&1 || status=$?
    echo "$status"
done
