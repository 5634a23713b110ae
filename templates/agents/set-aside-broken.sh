#!/bin/sh
# set-aside-broken DIRECTORY...
# Renames queue files that the collector would refuse to start with. It mends damaged pages itself (`recreate` of
# file_storage), but not a file whose two head pages are unreadable: bbolt then says "invalid database" or "file size
# too small" (db.go, Open). Each head page has a magic number behind its 16 byte header; one sound page is enough.
page=$(getconf PAGESIZE)
for directory; do
    for file in "$directory"/*; do
        case $file in *.backup | *.broken-*) continue ;; esac
        # An empty file is a new one.
        [ -s "$file" ] || continue
        if [ "$(stat -c %s "$file")" -ge $((2 * page)) ]; then
            for offset in 16 $((page + 16)); do
                magic=$(od -An -tx4 -j "$offset" -N 4 "$file" | tr -d ' ')
                [ "$magic" = ed0cdaed ] && continue 2
            done
        fi
        aside=$file.broken-$(date +%s)
        mv "$file" "$aside"
        echo "$file is no queue any more; kept as $aside, starting with an empty one" >&2
    done
done
