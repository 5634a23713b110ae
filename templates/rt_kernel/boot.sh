#!/bin/sh
# Managed by rtinfra, role rt_kernel. A change of kernel or command line is tried once; what does not prove itself is undone
# by booting again. docs/trial-boot.md tells the whole story. Settings: /etc/rtinfra/boot.conf.
#
#   boot keep      freeze what is running as the last known good entry, unless there is one
#   boot hold      say why this host must not be rebooted now, and exit 1; silent when it may
#   boot try       prepare one boot of the newest real-time kernel with the command line of grub.cfg
#   boot judge     on a trial: prove the real-time state before the deadline and promote it, otherwise reboot
#   boot settle    on the last known good: note that the trial before it failed, with what is left of it
#   boot forget    let a failed trial be tried again
#   boot menu      make a new grub.cfg and put it in the place of the old one in one step
#
# All that matters to GRUB is one file, /boot/grub/rtinfra.cfg: it names the folder of the last known good entry and that of
# the trial. Renaming it into place is the promotion. next_entry of grubenv, which GRUB clears before it boots, is the trial.
# Whatever is cut off between two lines leaves a host whose default is the last known good.
set -eu
export LC_ALL=C
umask 077

store=/boot/rtinfra
menu=/boot/grub/rtinfra.cfg
# Whose entries ours are made of; a new one before it is in place.
grub_cfg=/boot/grub/grub.cfg
state=$store/state
evidence=$store/evidence
guard=/etc/rtinfra/no-reboot
hooks=/etc/rtinfra/busy.d
keep_packages=/etc/apt/apt.conf.d/60rtinfra-last-known-good
# shellcheck source=/dev/null
. /etc/rtinfra/boot.conf

say() { printf 'rtinfra: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# settled PATH...: on the disk, where GRUB finds it. GRUB does not read the journal of ext4, so that is emptied too
# (EXT4_IOC_CHECKPOINT); other file systems and old kernels refuse, and have nothing better.
settled() {
    sync -- "$@"
    perl -e 'for (@ARGV) { open(F, "<", $_) and ioctl(F, 0x4004662b, my $n = pack("L", 0)) }' -- "$@" || true
}

# written FILE: standard input becomes FILE, all of it or nothing.
written() {
    cat >"$1.new"
    sync -- "$1.new"
    mv -fT -- "$1.new" "$1"
    settled "$1" "${1%/*}"
}

# value NAME FILE: of a file of NAME=value lines.
value() { [ ! -e "$2" ] || sed -n "s/^$1=//p" "$2" | head -n 1; }

# parameter NAME: of the command line that was booted.
parameter() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }

# entry good|trial: the folder that the menu names for it.
entry() { [ ! -e "$menu" ] || sed -n "s/^# $1 //p" "$menu"; }

# grub_words words|text: of standard input; see the reader.
reader='{% include "rt_kernel/grub-words.pl" %}'
grub_words() { perl -e "$reader" -- "$@"; }

# booted: the command line that runs, without what the boot loader and we add to it.
booted() { tr ' ' '\n' </proc/cmdline | grep -v '^BOOT_IMAGE=\|^initrd=\|^rtinfra\.' | paste -s -d ' ' -; }

newest() {
    for image in /boot/vmlinuz-$IMAGE_PATTERN; do
        case $image in *.old | *.bak | *~ | *.dpkg-*) continue ;; esac
        [ ! -e "$image" ] || printf '%s\n' "${image#/boot/vmlinuz-}"
    done | sort -V | tail -n 1
}

# block RELEASE: the entry that grub.cfg has for a kernel. Whatever this host needs to find its disks is in it.
block() {
    awk -v want="'gnulinux-$1-advanced-" '
        !inside && /^[ \t]*menuentry / && index($0, want) { inside = 1 }
        inside { print }
        inside && /^[ \t]*}[ \t]*$/ { exit }' "$grub_cfg"
}

# arguments RELEASE: what stands behind the image on the line of that entry that loads it, in the language of GRUB.
arguments() {
    block "$1" | sed -n 's/^[[:space:]]*linux[a-z0-9]*[[:space:]]\{1,\}[^[:space:]]\{1,\}[[:space:]]*//p' | head -n 1
}

# origin RELEASE NAME: the entry of grub.cfg that ours in that folder is made of. Without one of its own (its package is gone)
# that of any other kernel finds the same disks.
origin() {
    local text
    text=$(block "$1")
    [ -n "$text" ] || text=$(cat "$store/${2:-none}/block" 2>/dev/null) || return 1
    printf '%s\n' "$text"
}

# guarded FILE: whether GRUB, with that file as grub.cfg, asks for a name and a password before some of the entries.
guarded() {
    local file
    for file in "$1" /boot/grub/*.cfg; do
        if [ "$file" = "$1" ] || [ "$file" != /boot/grub/grub.cfg ]; then
            if grep -qs '^[[:space:]]*set superusers=' "$file"; then return 0; fi
        fi
    done
    return 1
}

# unmarked RELEASE [NAME]: whether that entry, or ours that is made of it, is one of them.
unmarked() { ! origin "$1" "${2-}" | grep '^[[:space:]]*menuentry' | grep -q -e '--unrestricted'; }

asks() { guarded "$grub_cfg" && unmarked "$@"; }

# remember FOLDER ARGUMENTS: what GRUB is told (text), and what the kernel gets of it (words).
remember() {
    printf '%s\n' "$2" | written "$1/text"
    # Last: a folder with this file is complete.
    printf '%s\n' "$2" | grub_words words | written "$1/words"
}

# store_entry RELEASE ARGUMENTS: freeze image, initrd and command line of a kernel in a folder named by their hash, and
# print that name. Links where the file system has them: a frozen copy costs no space, and stays when the original is replaced.
store_entry() {
    local image="/boot/vmlinuz-$1" initrd="/boot/initrd.img-$1" file sums name
    for file in "$image" "$initrd"; do
        [ -s "$file" ] || fail "$file is missing or empty; run \`dpkg-reconfigure linux-image-$1\` on the host"
    done
    sums=/var/lib/dpkg/info/linux-image-$1.md5sums
    if [ -e "$sums" ] && ! grep " boot/vmlinuz-$1\$" "$sums" | (cd / && md5sum --status -c); then
        fail "$image is not as its package brought it; run \`apt-get install --reinstall linux-image-$1\` on the host"
    fi
    lsinitramfs "$initrd" >/dev/null 2>&1 ||
        fail "$initrd is only half there; run \`update-initramfs -u -k $1\` on the host"
    name=$({ cat "$image" "$initrd"; printf '%s' "$2"; } | sha256sum | cut -c 1-12)
    if [ ! -e "$store/$name/words" ]; then
        rm -rf "${store:?}/$name"
        mkdir -p "$store/$name"
        cp -l "$image" "$store/$name/vmlinuz" 2>/dev/null || cp "$image" "$store/$name/vmlinuz"
        cp -l "$initrd" "$store/$name/initrd.img" 2>/dev/null || cp "$initrd" "$store/$name/initrd.img"
        printf '%s\n' "$1" >"$store/$name/release"
        # What the trial has to come to, as it was wanted when the trial was prepared.
        cp /etc/rtinfra/boot.conf "$store/$name/wanted"
        sync -- "$store/$name"/*
        remember "$store/$name" "$2"
        settled "$store" /boot
    fi
    printf '%s\n' "$name"
}

# menu_entry good|trial NAME: grub.cfg's own entry with frozen files and command line. Options of its head, such as
# --unrestricted, are kept. What a trial cannot load it does not wait for: the machine starts again, with the good entry.
menu_entry() {
    local title="Last known good" release told text
    [ "$1" = good ] || title="On trial"
    release=$(cat "$store/$2/release")
    # One of before this file was there has words only.
    told=$(cat "$store/$2/text" 2>/dev/null) || told=$(grub_words text <"$store/$2/words")
    # A trial that panics has to come back by itself.
    case " $told " in *" panic="[1-9]* | *" panic=-"*) ;; *) [ "$1" = good ] || told="$told panic=20" ;; esac
    text=$(origin "$release" "$2") || fail "GRUB has no entry for $release"
    printf '%s\n' "$text" | written "$store/$2/block"
    printf '%s\n' "$text" | TITLE="'$title: $release (rtinfra)'" ID="rtinfra-$1" FILES=$(grub-mkrelpath "$store/$2") TOLD="$told rtinfra.$1=$2" awk '
        function load(line) {
            if (ENVIRON["ID"] == "rtinfra-trial") line = "if " line "; then true; else reboot; fi"
            print "\t" line
        }
        /^[ \t]*menuentry / {
            sub(/^[ \t]*menuentry[ \t]+(\047[^\047]*\047|"[^"]*"|\\.|[^ \t\047"\\])+/, "")
            gsub(/[ \t](--id|--hotkey|\$menuentry_id_option|\$\{menuentry_id_option\})[ \t=]+(\047[^\047]*\047|"[^"]*"|[^ \t\047"]+)/, "")
            sub(/[ \t]*\{[ \t]*$/, "")
            print "menuentry " ENVIRON["TITLE"] $0 " --id " ENVIRON["ID"] " {"
            next
        }
        /^[ \t]*linux/ { load($1 " " ENVIRON["FILES"] "/vmlinuz " ENVIRON["TOLD"]); next }
        /^[ \t]*initrd/ {
            line = $1
            # Others than the kernel own (microcode) stay as they are.
            for (i = 2; i <= NF; i++) line = line " " ($i ~ /\/initrd\.img-/ ? ENVIRON["FILES"] "/initrd.img" : $i)
            load(line)
            next
        }
        { sub(/^\t+/, "\t"); sub(/^[ \t]*}[ \t]*$/, "}"); print }'
}

# point GOOD [TRIAL]: make the menu name these, and nothing else.
point() {
    local release folder name
    {
        printf '# Written by rtinfra. What boots when nobody chooses is the last known good entry; see docs/trial-boot.md.\n'
        printf '# good %s\n' "$1"
        [ -z "${2-}" ] || printf '# trial %s\n' "$2"
        menu_entry good "$1"
        [ -z "${2-}" ] || menu_entry trial "$2"
    } >"$store/menu"
    grub-script-check "$store/menu" || fail "the boot menu would not be understood by GRUB: $store/menu"
    written "$menu" <"$store/menu"
    rm -f "$store/menu"
    # apt's own cleaning keeps the modules of the last known good kernel; /etc/kernel/prerm.d/rtinfra refuses people.
    release=$(sed 's/[.+]/\\&/g' "$store/$1/release")
    printf '// Written by rtinfra: the last known good kernel is not cleaned away.\nAPT::NeverAutoRemove { "^linux-image-%s$"; };\n' \
        "$release" | written "$keep_packages"
    chmod 0644 "$keep_packages"
    for folder in "$store"/????????????/; do
        name=${folder%/} name=${name##*/}
        [ ! -e "$folder" ] || [ "$name" = "$1" ] || [ "$name" = "${2-}" ] || rm -rf "$folder"
    done
}

# follow GOOD [TRIAL]: write the menu anew when grub.cfg makes another good entry of it; not on that trial, whose judge is about to.
follow() {
    local told
    if [ -n "${2-}" ] && [ "$2" = "$(parameter rtinfra.trial)" ]; then return 0; fi
    told=$(menu_entry good "$1")
    [ "$(sed -n '/^menuentry /,/^}/{p;/^}/q}' "$menu")" = "$told" ] || point "$@"
}

# record ID STATUS REASON [ATTEMPT]: what became of a trial, for the deploy that comes to look. ended: without a verdict.
record() {
    local attempt="${4:-1}"
    [ -n "${4-}" ] || [ "$(value id "$state")" != "$1" ] || attempt=$(value attempt "$state")
    printf 'id=%s\nstatus=%s\nattempt=%s\nrelease=%s\nat=%s\nboot=%s\nreason=%s\n' "$1" "$2" \
        "$attempt" \
        "$(cat "$store/$1/release" 2>/dev/null || value release "$state")" \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(cat /proc/sys/kernel/random/boot_id)" "$3" | written "$state"
}

is_complete() { [ -n "$1" ] && [ -s "$store/$1/words" ] && [ -s "$store/$1/vmlinuz" ] && [ -s "$store/$1/initrd.img" ]; }

keep() {
    local good release told name
    good=$(entry good)
    if is_complete "$good"; then
        [ "$(value saved_entry /boot/grub/grubenv)" = rtinfra-good ] || grub-set-default rtinfra-good
        # An entry that an older version of this program wrote may have lost what stood in its head. One on trial stays.
        [ -n "$(entry trial)" ] || follow "$good"
        return 0
    fi
    release=$(uname -r)
    [ -n "$(block "$release")" ] || fail "GRUB has no entry for the running kernel $release, so it cannot be kept as the last
known good one; run \`update-grub\` on the host and look at its messages"
    ! asks "$release" || fail "GRUB asks for a password before it starts this kernel, so the host would not come back by
itself; give the entries --unrestricted (CLASS in /etc/grub.d/10_linux), then run \`update-grub\` on the host"
    told=$(booted | grub_words text)
    mkdir -p "$store"
    name=$(store_entry "$release" "$told")
    point "$name"
    grub-set-default rtinfra-good
    settled /boot/grub/grubenv
    say "$release is kept as the last known good"
}

hold() {
    local hook answer
    [ ! -e "$guard" ] || fail "it is not to be rebooted ($guard): $(head -n 3 "$guard" | tr '\n' ' ')"
    for hook in "$hooks"/*; do
        [ -x "$hook" ] && [ -f "$hook" ] || continue
        if ! answer=$(timeout 20 "$hook" 2>&1 </dev/null); then
            fail "it is busy, says $hook: ${answer:-no reason given}"
        fi
    done
}

try() {
    local release good name attempt=1
    release=$(newest)
    [ -n "$release" ] || fail "no real-time kernel is installed"
    grub-script-check /boot/grub/grub.cfg ||
        fail "/boot/grub/grub.cfg is only half there; run \`update-grub\` on the host"
    good=$(entry good)
    is_complete "$good" || fail "there is no last known good entry to come back to"
    ! asks "$release" || fail "GRUB asks for a password before it starts $release, so nobody would start it; give the
entries --unrestricted (CLASS in /etc/grub.d/10_linux), then run \`update-grub\` on the host"
    name=$(store_entry "$release" "$(arguments "$release")")
    if [ "$name" = "$(value id "$state")" ]; then
        case $(value status "$state") in
        failed)
            rm -rf "${store:?}/$name"
            fail "tried before: $(value reason "$state")"
            ;;
        ended) attempt=2 ;;
        esac
    fi
    [ "$name" != "$good" ] || { point "$good"; say "$name"; return 0; }
    # The way in by which the deploy came; empty under sudo.
    printf '%s\n' "${SSH_CONNECTION-}" | cut -s -d ' ' -f 3 | written "$store/$name/address"
    point "$good" "$name"
    rm -f "$evidence"
    grub-reboot rtinfra-trial
    settled /boot/grub/grubenv
    record "$name" armed "not booted yet" "$attempt"
    say "$name"
}

# has_address ADDRESS: whether this host has it. One of the host itself is the end of a tunnel, of which nothing else is
# known; behind % is the card of a link-local one.
has_address() {
    case $1 in
    '' | 127.* | ::1 | ::ffff:127.*) ;;
    *) ip -o address show | grep -qF -e "inet ${1%%\%*}/" -e "inet6 ${1%%\%*}/" -e "inet ${1%%\%*} peer " -e "inet6 ${1%%\%*} peer " ;;
    esac
}

# wrong: print the first thing that is not as this trial promises; `never` before it when waiting does not help.
wrong() {
    local word said found
    case $(uname -v) in *PREEMPT_RT*) ;; *) echo "never the kernel $(uname -r) is not a real-time one"; return ;; esac
    [ "$(uname -r)" = "$(cat "$1/release")" ] || { echo "never the kernel is $(uname -r)"; return; }
    for word in $PARAMETERS; do
        case " $(cat /proc/cmdline) " in
        *" $word "*) ;;
        *) echo "never the command line lacks $word"; return ;;
        esac
    done
    said=$(dmesg 2>/dev/null | grep -m 1 -o 'Housekeeping:.*\|isolcpus:.*' || true)
    [ -z "$said" ] || { echo "never the kernel rejected the isolated cores: $said"; return; }
    found=$(cat /sys/devices/system/cpu/nohz_full 2>/dev/null || true)
    [ "$found" = "$ISOLATED" ] || { echo "never nohz_full cores are '$found' instead of $ISOLATED"; return; }
    # Made by rtinfra-partition.service, which is still starting.
    found=$(cat /sys/fs/cgroup/rt.slice/cpuset.cpus.partition 2>/dev/null || true)
    [ "$found" = isolated ] || { echo "later rt.slice is '$found' and no isolated partition of the cores $ISOLATED"; return; }
    ! systemctl is-active --quiet emergency.target rescue.target ||
        { echo "later the system is in emergency mode: $(systemctl --failed --plain --no-legend | head -n 3 | cut -d ' ' -f 1 | tr '\n' ' ')"; return; }
    # The way in by which the deploy came: the address, and what answers there.
    has_address "$ADDRESS" || { echo "later the address $ADDRESS is gone"; return; }
    systemctl is-active --quiet ssh.service ssh.socket || { echo "later ssh is not running"; return; }
}

judge() {
    local name folder end why told
    name=$(parameter rtinfra.trial)
    folder=$store/$name
    end=$(($(cut -d . -f 1 /proc/uptime) + DEADLINE)) why="later /boot is not there"
    while :; do
        # The file systems may still be coming.
        if [ -e "$folder/words" ] && [ -w "$store" ]; then
            . "$folder/wanted"
            ADDRESS=$(cat "$folder/address" 2>/dev/null || true)
            [ "$(value id "$state")" = "$name" ] && [ "$(value status "$state")" != armed ] ||
                record "$name" running "started, not proven yet"
            why=$(wrong "$folder")
            [ -n "$why" ] || break
        fi
        case $why in never*) break ;; esac
        [ "$(cut -d . -f 1 /proc/uptime)" -lt "$end" ] || { why="later within $DEADLINE s: ${why#* }"; break; }
        sleep 3
    done
    if [ -n "$why" ]; then
        say "the trial failed: ${why#* }; going back to the last known good" >&2
        record "$name" failed "${why#* }" || true
        # What led to this is to be on the disk before the machine is gone.
        journalctl --sync || true
        exit 1
    fi
    # What was proven is kept, whatever the variables in it may be at the next start; without what only a trial has.
    told=$(booted)
    case " $(cat "$folder/words") " in *" panic="[1-9]* | *" panic=-"*) ;; *) told=${told% panic=20} ;; esac
    if told=$(printf '%s' "$told" | grub_words text); then remember "$folder" "$told"; fi
    point "$name"
    record "$name" promoted "proven"
    say "$(uname -r) is proven, and the last known good from now on"
}

settle() {
    local id why before status=ended
    [ -e "$state" ] || return 0
    id=$(value id "$state")
    case $(value status "$state") in
    armed | running) ;;
    # Its own words say why; the journal has what came before.
    failed) [ ! -e "$evidence" ] || return 0 ;;
    *) return 0 ;;
    esac
    if [ "$id" = "$(entry good)" ]; then record "$id" promoted "proven"; return 0; fi
    {
        # shellcheck disable=SC2012 # names that kernel and systemd give
        ls /var/lib/systemd/pstore/*/dmesg.txt /sys/fs/pstore/* 2>/dev/null | tail -n 1 | xargs -r tail -n 40
        # The boot before this one, when it got as far as a journal.
        before=$(journalctl -b -1 -k -o cat --no-pager 2>/dev/null | grep -m 1 -c "rtinfra.trial=$id" || true)
        if [ "$before" = 1 ]; then journalctl -b -1 -p warning -n 40 -o short-monotonic --no-pager; fi
    } 2>/dev/null | written "$evidence"
    if [ "$(value status "$state")" != failed ]; then
        if [ -s "$evidence" ]; then
            why="it ended before it was proven; the end of its log follows"
        else
            why="it ended before there was any log: kernel, root device, init, or the power failed; only its console shows more"
        fi
        # The power may have failed, which says nothing of the kernel: a second attempt tells.
        if [ "$(value attempt "$state")" = 2 ]; then status=failed why="$why (twice)"; fi
        record "$id" "$status" "$why"
    fi
    point "$(entry good)"
    say "the trial of $(value release "$state") failed: $(value reason "$state")"
}

# grub-mkconfig writes its file in place: a power cut in that moment would leave a host that boots nothing.
menu() {
    local live=$grub_cfg new=/boot/grub/grub.cfg.rtinfra good trial release
    trap 'rm -f /boot/grub/grub.cfg.rtinfra /boot/grub/grub.cfg.rtinfra.new' EXIT
    grub-mkconfig -o "$new"
    grub-script-check "$new"
    sync -- "$new"
    good=$(entry good) trial=$(entry trial)
    is_complete "$good" || good=
    is_complete "$trial" || trial=
    if [ -n "$good" ]; then
        release=$(cat "$store/$good/release")
        grub_cfg=$new
        ! asks "$release" "$good" || fail "with a new menu GRUB would ask for a password before it starts $release, so the
host would not come back by itself; the menu of before stays. Give the entries --unrestricted (CLASS in
/etc/grub.d/10_linux), then run \`update-grub\` on the host"
        # Whatever the power cuts off: the mark that an entry starts without a password comes before the password, and goes
        # after it.
        if guarded "$live" && unmarked "$release" "$good"; then grub_cfg=$live; else follow "$good" ${trial:+"$trial"}; fi
    fi
    mv -fT -- "$new" "$live"
    # Of a distribution's update-grub that was cut off before this host was ours; nothing else would take it away.
    rm -f /boot/grub/grub.cfg.new
    settled "$live" /boot/grub
    if [ -n "$good" ] && [ "$grub_cfg" = "$live" ]; then follow "$good" ${trial:+"$trial"}; fi
}

forget() { rm -f "$state" "$evidence"; settled "$store"; }

case "${1-}" in
keep | hold | try | judge | settle | forget | menu) "$1" ;;
*) sed -n '5,11p' "$0" >&2; exit 2 ;;
esac
