#!/bin/bash
# wait-ready SECONDS http://ADDRESS:PORT/PATH STATUS...
# Ends with 0 once the URL answers with one of the statuses. Needs nothing but bash: a bare host has no HTTP client.
seconds=$1 url=$2
shift 2
rest=${url#http://}
address=${rest%%/*} path=/${rest#*/}
host=${address%:*} port=${address##*:}
last="no answer"
while ((SECONDS < seconds)); do
    # systemd names the service's process here; once that is gone there is nothing to wait for.
    if [[ -n ${MAINPID-} ]] && ! kill -0 "$MAINPID"; then
        last="the program has ended"
        break
    fi 2>/dev/null
    if exec 3<>"/dev/tcp/$host/$port"; then
        printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$path" "$address" >&3
        if read -r -t 10 _ status _ <&3; then
            for wanted; do [[ $status == "$wanted" ]] && exit 0; done
            last="status $status"
        fi
        exec 3>&-
    fi 2>/dev/null
    sleep 0.5
done
echo "$url did not become ready within $SECONDS s: $last, wanted $*" >&2
exit 1
