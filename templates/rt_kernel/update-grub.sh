#!/bin/sh
# Managed by rtinfra, role rt_kernel. Found before /usr/sbin/update-grub, which writes grub.cfg in place.
[ "$#" -eq 0 ] || exec /usr/sbin/update-grub "$@"
exec /usr/local/lib/rtinfra/boot menu
