#!/bin/sh
# Managed by rtinfra, role rt_kernel. Run before a kernel package is removed, with its release as the first argument.
case "${DEB_MAINT_PARAMS-}" in *remove*) ;; *) exit 0 ;; esac
good=$(sed -n 's/^# good //p' /boot/grub/rtinfra.cfg 2>/dev/null)
[ -n "$good" ] && [ "$(cat "/boot/rtinfra/$good/release" 2>/dev/null)" = "$1" ] || exit 0
echo "rtinfra: $1 is the last known good kernel of this host; without its modules it could not boot." >&2
echo "rtinfra: Let a deploy bring up another one first, then remove this one." >&2
exit 1
