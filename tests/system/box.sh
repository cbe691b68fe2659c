#!/usr/bin/env bash
# box.sh DIR COMMAND [ARG...]: runs COMMAND where it can use cron and change crontabs without touching those of this
# machine: private mount and process namespaces with a spool, /run, /dev, /etc and home of root of their own. What is
# started there dies with it. Needs root.
set -eu
dir=$1; shift
mkdir -p "$dir"/{dev,etc,spool,home}
chown root:crontab "$dir/spool" 2>/dev/null || true; chmod 1730 "$dir/spool"
printf '#!/bin/sh\nexec cat >/dev/null\n' >"$dir/sendmail"; chmod 755 "$dir/sendmail" "$dir/home" "$dir"
export dir HOME="$dir/home"
exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private bash -c '
set -eu
mount -t tmpfs none "$dir/dev"
for name in null zero full random urandom; do touch "$dir/dev/$name"; mount --bind "/dev/$name" "$dir/dev/$name"; done
mkdir "$dir/dev/shm"; ln -s /proc/self/fd "$dir/dev/fd"
mount --move "$dir/dev" /dev
mount -t tmpfs none /run
mount --bind "$dir/spool" /var/spool/cron/crontabs
mount -t tmpfs none "$dir/etc"
cp -a /etc/. "$dir/etc"
rm -rf "$dir"/etc/cron.* "$dir/etc/crontab"; mkdir "$dir/etc/cron.d"
sed "s|^root:\([^:]*\):0:0:\([^:]*\):[^:]*:|root:\1:0:0:\2:$dir/home:|" /etc/passwd >"$dir/etc/passwd"
mount --move "$dir/etc" /etc
[ ! -e /usr/sbin/sendmail ] || mount --bind "$dir/sendmail" /usr/sbin/sendmail
"$@" || exit $?  # no exec: the first process of a namespace has to be one that reaps
' box "$@"
