# Puts files in place, all or nothing up to the first rename, each rename atomic.
# Standard input: base64 of a tar with `manifest` and the new files below `root/`. Written for sh and perl, since a
# bare host has nothing else (dpkg needs perl-base). The manifest's lines are tab separated; see files.py for who writes them.
set -eu
umask 077
state=/var/lib/rtinfra
pending=/run/rtinfra/pending
# A boot restarts everything with the new files, but it makes no boot menu and no accounts.
lasting=$state/pending
previous=/run/rtinfra/previous
mkdir -p "$lasting" "$pending" "$previous"
# One kept from a run that was cut off is of no use to anybody.
rm -rf "$state"/stage.*
stage=$(mktemp -d "$state/stage.XXXXXXXX")
trap 'rm -rf "$stage"' EXIT
base64 -d | tar -x -C "$stage"
tab=$(printf '\t')

fail() { printf 'rtinfra: %s\n' "$*" >&2; exit 1; }

while IFS="$tab" read -r kind path command; do
    [ "$kind" = validate ] || continue
    (cd "$stage/root" && sh -c "$command") >"$stage/said" 2>&1 </dev/null ||
        fail "$path: the new file is refused by its checker, nothing was changed: $(tail -n 5 "$stage/said")"
done <"$stage/manifest"

# Remembered before the first change, so that a run cut off here is completed by the next one.
while IFS="$tab" read -r kind name rest; do
    case "$kind" in
    action) : >"$lasting/$name" ;;
    marker) : >"$pending/$name" ;;
    esac
done <"$stage/manifest"
sync -f -- "$lasting"

# One program for all files, since starting four for each took most of the time of a first deploy. All that is new lies
# beside its place, with its mode and owner, and is on the disk before the first rename.
place=PLACE_PL
perl -e "$place" -- sync "$stage" "$previous"

while IFS="$tab" read -r kind name command; do
    [ "$kind" = action ] || continue
    sh -c "$command" </dev/null || fail "the files are in place, but '$name' failed ($command); the next run tries it again"
    # What it wrote has to be there when the power goes and the marker is not.
    sync -f -- "$state"
    rm -f "$pending/$name" "$lasting/$name"
done <"$stage/manifest"
