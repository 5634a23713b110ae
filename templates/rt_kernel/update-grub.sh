#!/bin/sh
# Managed by rtinfra, role rt_kernel. Found before /usr/sbin/update-grub, which writes grub.cfg in place: a power cut in that
# moment leaves a host that boots nothing. This one makes it beside the old one, and it is live by one rename.
set -eu
[ "$#" -eq 0 ] || exec /usr/sbin/update-grub "$@"
live=/boot/grub/grub.cfg
new=$live.rtinfra
trap 'rm -f "$new" "$new.new"' EXIT
grub-mkconfig -o "$new"
grub-script-check "$new"
sync -- "$new"
mv -fT -- "$new" "$live"
sync -- /boot/grub
# GRUB does not read the journal of ext4, so that is emptied (EXT4_IOC_CHECKPOINT, as /usr/local/lib/rtinfra/boot does).
perl -e 'open(F, "<", $ARGV[0]) and ioctl(F, 0x4004662b, my $n = pack("L", 0))' "$live" || true
