# Puts back what set-aside.sh kept, then forgets it. The mirror's own files are gone already.
set -eu
state=/var/lib/rtinfra/mirror-client
kept=$state/set-aside
place=PLACE_PL
find "$kept" ! -type d ! -name '*.new' ! -name '*.~*~' | while IFS= read -r copy; do
    path=${copy#"$kept"}
    case "$path" in
    # There was nothing; but a package that came meanwhile may have left its own version beside ours.
    *.absent)
        path=${path%.absent}
        copy=$path.dpkg-dist
        [ -e "$copy" ] || continue
        ;;
    esac
    # Somebody wrote a new one meanwhile.
    if [ -e "$path" ] || [ -L "$path" ]; then continue; fi
    printf '%s\t%s\n' "$copy" "$path" | perl -e "$place" -- copy
    case "$copy" in *.dpkg-dist) rm -f -- "$copy" ;; esac
done
rm -rf "$state"
