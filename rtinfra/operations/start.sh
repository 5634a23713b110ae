# Starts or restarts a unit: $1 is the verb, $2 the unit. When that fails its journal is shown, the files it ran
# with before are put back (sync.sh kept them), it is started with those, and the outcome is a failure all the same.
pending=/run/rtinfra/pending/restart@$2
previous=/run/rtinfra/previous/$2
# A unit that gave up is allowed to try again.
systemctl reset-failed "$2" 2>/dev/null
if systemctl "$1" "$2"; then
    rm -rf "$pending" "$previous"
    exit 0
fi
journalctl --no-pager -n 30 -u "$2" >&2
# There is a way back only when it ran before: all files of a first start are new, and stay for a look at them.
# shellcheck disable=SC2010 # whether there is any other name, not which
ls -A "$previous" 2>/dev/null | grep -qvx paths || exit 1
place=PLACE_PL
while read -r path; do
    kept=$previous/$(printf '%s' "$path" | tr / :)
    [ -e "$kept" ] || [ -L "$kept" ] || kept=
    printf '%s\t%s\n' "$kept" "$path"
done <"$previous/paths" | perl -e "$place" -- copy || exit 1
rm -rf "$previous"
systemctl daemon-reload
systemctl reset-failed "$2" 2>/dev/null
if systemctl restart "$2"; then
    rm -f "$pending"
    echo "$2 did not start with its new files: the previous ones are back, and it runs with them" >&2
else
    echo "$2 starts neither with its new files nor with the previous ones, which are back" >&2
fi
exit 1
