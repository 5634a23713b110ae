# Keeps copies of files that are about to be taken out of use, so that restore.sh can put them back.
# Arguments are pairs: `source PATH` of a file that will be removed, `replaced PATH` of one that ours will replace.
set -eu
umask 077
state=/var/lib/rtinfra/mirror-client
kept=$state/set-aside
place=PLACE_PL
mkdir -p "$kept"
# What other sources brought is brought to the mirror's versions again.
[ "$#" -eq 0 ] || rm -f "$state/release"
while [ "$#" -gt 0 ]; do
    kind=$1 path=$2 copy=$kept$2
    shift 2
    mkdir -p "${copy%/*}"
    if [ "$kind" = replaced ]; then
        # Decided the first time; what is there now is an earlier version of ours.
        if [ -e "$copy" ] || [ -e "$copy.absent" ]; then continue; fi
        if [ ! -e "$path" ]; then
            : >"$copy.absent"
            continue
        fi
    fi
    printf '%s\t%s\n' "$path" "$copy.new" | perl -e "$place" -- copy
    if [ "$kind" = source ] && cmp -s -- "$copy.new" "$copy"; then
        rm -f -- "$copy.new"
        continue
    fi
    # Of two files that had this name one after the other, both are kept; the newer one is put back.
    mv -T --backup=numbered -- "$copy.new" "$copy"
done
sync -f -- "$kept"
