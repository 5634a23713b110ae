# Changes the packet filter of a host so that nobody locks himself out. What is to be done is the first argument.
#   try SECONDS   load the rules on standard input; they are taken back by the host itself after so many seconds
#   back          take them back now
#   keep SHA256   they stay; this is the hash of what was tried
#   off           no rules at all
set -eu
umask 077
PATH=$PATH:/usr/sbin:/sbin
trial=/run/rtinfra/packet-filter-trial
unit=rtinfra-packet-filter-trial
loaded=LOADED_FILE

fail() { printf 'rtinfra: %s\n' "$*" >&2; exit 1; }

hash_table() { HASH_TABLE; }

# Whoever renames the mark first decides: the host when the time is over, or who was heard of again. One command in one
# process, for the timer has only a word of it.
take_back="mv -T $trial/armed $trial/taken 2>/dev/null && nft -f $trial/before.nft"

disarm() { systemctl stop "$unit.timer" 2>/dev/null || true; }

case "$1" in
try)
    mkdir -p "$trial"
    # Of a run that was cut off: what it tried was never confirmed, so it is not what to go back to.
    if [ -e "$trial/armed" ]; then sh -c "$take_back" || true; disarm; fi
    cat >"$trial/new.nft"
    said=$(nft -c -f "$trial/new.nft" 2>&1) || fail "nft refuses the rules, nothing was changed: $said"
    { printf 'table TABLE_NAME\ndelete table TABLE_NAME\n'; nft list table TABLE_NAME 2>/dev/null || true; } \
        >"$trial/before.nft"
    : >"$trial/armed"
    # A second at most: by itself systemd may be a minute late.
    systemd-run --quiet --collect --unit="$unit" --on-active="$2" --timer-property=AccuracySec=1s \
        /bin/sh -c "$take_back"
    if ! said=$(nft -f "$trial/new.nft" 2>&1); then
        rm -f "$trial/armed"
        disarm
        fail "the kernel refuses the rules, nothing was changed: $said"
    fi
    ;;
back)
    sh -c "$take_back"
    disarm
    ;;
keep)
    mv -T "$trial/armed" "$trial/kept" 2>/dev/null ||
        fail "the answer came too late: the host has taken the new rules back"
    disarm
    printf '%s %s\n' "$2" "$(hash_table)" >"$loaded"
    rm -rf "$trial"
    ;;
off)
    rm -f "$trial/armed"
    disarm
    systemctl disable --now --quiet UNIT_NAME 2>/dev/null || true
    if nft list table TABLE_NAME >/dev/null 2>&1; then nft delete table TABLE_NAME; fi
    rm -f "$loaded"
    ;;
*) fail "unknown: $1" ;;
esac
