#!/bin/sh
# Bring this bundle in: check it, install Python and rtinfra from it, import it. Needs Debian, ssh-keygen, no network.
#
#   sh install.sh --key NUMBER [--target /opt/rtinfra] [--mirror /srv/rtinfra-mirror]
#
#   --key     number of the key that signed the bundle (64 digits), as whoever made it says on another way
#   --target  where rtinfra is installed
#   --mirror  where the mirror keeps its contents
#
# Before it is run for the first time, two lines check it, and everything else here: see docs/offline.md.
# Interrupted, it is repeated with the same command. Where this rtinfra is installed already, it only imports.
set -eu
export LC_ALL=C.UTF-8
umask 022

key='' target=/opt/rtinfra mirror=/srv/rtinfra-mirror

fail() {
    printf '\nrefused: %s\n' "$1" >&2
    printf 'Next step: %s\n' "$2" >&2
    exit 1
}

say() { printf '%s\n' "$*" >&2; }

while [ $# -gt 0 ]; do
    case $1 in
    --key | --target | --mirror)
        [ $# -ge 2 ] || fail "$1 needs a value" "see: head -10 $0"
        case $1 in --key) key=$2 ;; --target) target=$2 ;; --mirror) mirror=$2 ;; esac
        shift 2
        ;;
    *) fail "unknown option $1" "see: head -10 $0" ;;
    esac
done
for path in "$target" "$mirror"; do
    case $path in
    *[!A-Za-z0-9/._-]*) fail "$path has blanks or special characters" "choose a plain path" ;;
    /?*) ;;
    *) fail "$path does not begin with /" "give the whole path" ;;
    esac
done

[ "$(id -u)" = 0 ] || fail "this needs the rights of root" "become root (su -), then type the same"
bundle=$(cd "$(dirname "$0")" && pwd)
cd "$bundle"
command -v ssh-keygen >/dev/null || fail "ssh-keygen is missing, which checks the signature" \
    "install the package openssh-client; it is on the medium that Debian was installed from"

# ---- whose bundle it is --------------------------------------------------------------------------------------------

for file in bundle.signers manifest.json manifest.json.sig manifest.txt SHA256SUMS SHA256SUMS.sig Packages; do
    [ -f "$file" ] || fail "$file is missing from $bundle" "carry this file again"
done
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT TERM HUP

# Whatever is read here besides the parts is copied once, and only the copy is checked and used: the folder may be on a
# stick that gives other bytes the next time. No link is followed, nothing is waited for, and there is an end.
copy=$temporary/bundle
mkdir "$copy"
take() {
    [ ! -L "$1" ] && [ -f "$1" ] &&
        dd if="$1" of="$copy/$1" bs=1M count=64 iflag=nofollow,nonblock,fullblock status=none 2>/dev/null
}
for file in bundle.signers SHA256SUMS SHA256SUMS.sig; do
    take "$file" || fail "$file is no plain file, or cannot be read" "carry this file again, find out who changed it"
done

# ssh-keygen would take several keys, names for anybody and certificates. Here it is one key, written in one way.
signers='rtinfra namespaces="rtinfra-bundle" ssh-ed25519'
blob=$(sed -n "s|^$signers \(AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]\{43\}\)\$|\1|p" "$copy/bundle.signers")
case $blob in *[!A-Za-z0-9+/]*) blob='' ;; esac
printf '%s %s\n' "$signers" "$blob" >"$temporary/signers"
if [ -z "$blob" ] || ! cmp -s "$temporary/signers" "$copy/bundle.signers"; then
    fail "bundle.signers is not one line with one key" "do not use this bundle; find out who changed it"
fi
number=$(sha256sum <"$temporary/signers" | cut -d ' ' -f 1)
printf 'ssh-ed25519 %s\n' "$blob" >"$temporary/key.pub"
found=$(ssh-keygen -l -f "$temporary/key.pub" | cut -d ' ' -f 2)
say "key of this bundle / 번들의 키: $found"
say "its number / 키 번호: $number"

! grep -qF "bundle $found " "$mirror/keys/refused_keys" 2>/dev/null ||
    fail "the key $found is refused here: it was reported as stolen or lost" \
        "do not use this bundle; have one made with the present key, and find out who made this one"
if [ -z "$key" ] && [ -f "$mirror/trusted_bundle_key" ]; then
    # The keys since the last import, each on a line of its own with the time it ends.
    pinned='^rtinfra namespaces="rtinfra-bundle"\(,valid-after="[0-9]\{14\}Z"\)\{0,1\}'
    pinned="$pinned\\(,valid-before=\"\\([0-9]\\{14\\}\\)Z\"\\)\\{0,1\\} ssh-ed25519"
    ! grep -qv "$pinned AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]\{43\}\$" "$mirror/trusted_bundle_key" ||
        fail "$mirror/trusted_bundle_key has a line that rtinfra did not write" "find out who changed it"
    if grep -q "$pinned $blob\$" "$mirror/trusted_bundle_key"; then
        ends=$(sed -n "s|$pinned $blob\$|\3|p" "$mirror/trusted_bundle_key")
        [ -z "$ends" ] || [ "$(date -u +%Y%m%d%H%M%S)" -lt "$ends" ] ||
            fail "the key $found has ended at $ends UTC (year, month, day, time)" \
                "where bundles are made: rtinfra mirror keys rotate bundle, then make the bundle again"
        key=$number
    else
        key=$(cut -d ' ' -f 4 "$mirror/trusted_bundle_key" | while read -r one; do
            printf 'ssh-ed25519 %s\n' "$one" | ssh-keygen -l -f - | cut -d ' ' -f 2
        done | tr '\n' ' ')
    fi
fi
if [ -z "$key" ] && [ -t 0 ]; then
    say "Ask whoever made the bundle, by telephone or on paper: is this the number they see?"
    say "번들을 만든 사람에게 전화나 종이로 확인하십시오: 같은 번호입니까?"
    printf 'yes / no: ' >&2
    read -r answer
    [ "$answer" = yes ] || fail "the key was not confirmed" "do not use this bundle until its number is confirmed"
    key=$number
fi
[ -n "$key" ] || fail "no key is trusted here yet" \
    "ask whoever made the bundle for its number, on another way; type the two lines that check it; then: sh $0 --key NUMBER"
if [ "$key" != "$found" ] && [ "$(printf %s "$key" | tr A-F a-f)" != "$number" ]; then
    fail "the bundle is of the key $found, but the key trusted here is $key" \
        "do not use this bundle, unless those who made it tell you its number by telephone; then give that with --key"
fi

ssh-keygen -Y verify -f "$temporary/signers" -I rtinfra -n rtinfra-bundle -s "$copy/SHA256SUMS.sig" \
    <"$copy/SHA256SUMS" >/dev/null 2>&1 ||
    fail "SHA256SUMS is not what the key $found signed" \
        "do not use this bundle; carry it again, find out who changed it"

# ---- whether it is whole -------------------------------------------------------------------------------------------

# From here on: only what SHA256SUMS vouches for, and nothing else in the folder.
cut -c 67- "$copy/SHA256SUMS" >"$temporary/listed"
printf '%s\n' bundle.signers SHA256SUMS SHA256SUMS.sig manifest.json.sig >>"$temporary/listed"
# A line for each entry; what a name has in it that could end a line is a question mark.
find . -mindepth 1 -maxdepth 1 ! -type f -printf '%f\n' | tr -c '[:print:]\n' '?' >"$temporary/strange"
find . -mindepth 1 -maxdepth 1 -type f -printf '%f\0' | tr '\n\0' '?\n' |
    grep -vxF -f "$temporary/listed" >>"$temporary/strange" || true
[ ! -s "$temporary/strange" ] || fail "this is not of the bundle: $(sort "$temporary/strange" | tr '\n' ' ')" \
    "find out who put it there; after removing it the bundle can be used"
# Everything but the parts is small and first.
grep -v ' part-[0-9]*$' "$copy/SHA256SUMS" >"$temporary/small"
cut -c 67- "$temporary/small" | while read -r file; do take "$file" || true; done
(cd "$copy" && sha256sum --check --strict --quiet "$temporary/small" >&2) ||
    fail "files of the bundle are damaged or missing: they are named above" "only these have to be carried again"

manifest=$copy/manifest.txt
fact() { sed -n "s/^$1 //p" "$manifest"; }

id=$(fact id)
created=$(fact created) valid_until=$(fact valid_until) now=$(date +%s)
architecture=$(fact architecture) here=$(dpkg --print-architecture)
suite=$(fact suite) release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
[ "$architecture" = "$here" ] || fail "the bundle is for $architecture, this computer is $here" \
    "make a bundle for $here, or use a computer of $architecture"
[ "$suite" = "$release" ] || fail "the bundle is for Debian $suite, this computer has $release" \
    "use a computer with Debian $suite"
[ "$now" -ge "$created" ] || fail \
    "the bundle was made at $(date -u -d "@$created" '+%F %T') UTC, but this clock says $(date -u '+%F %T') UTC" \
    "set the clock: date --utc --set 'YYYY-MM-DD HH:MM:SS', then repeat"
[ "$now" -lt "$valid_until" ] || fail "the bundle expired at $(date -u -d "@$valid_until" '+%F %T') UTC" \
    "make a new bundle where there is a network (rtinfra mirror lock, fetch, bundle) and carry it here"

# The folder, or the one it will be made in.
existing() {
    place=$1
    while [ ! -e "$place" ]; do place=$(dirname "$place"); done
    echo "$place"
}
require_space() {
    free=$(df -P -B 1 "$(existing "$1")" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] || fail \
        "not enough disk space: $1 has $((free / 1000000)) MB free, $(($2 / 1000000 + 1)) MB are needed" \
        "free some space, or choose another place with --mirror and --target"
}
# Contents that the pool has are no second time in it; installing unpacks packages and wheels, then their files.
needed=$(while read -r word sha256 size where _; do
    case $word in package | index | blob | wheel | file | lock) ;; *) continue ;; esac
    [ "$where" = inside ] && [ ! -e "$mirror/pool/$(printf %.2s "$sha256")/$sha256" ] && echo "$size"
    :
done <"$manifest" | awk '{ sum += $1 } END { printf "%.0f", sum * 1.1 }')
require_space "$mirror" "$needed"
# Python, the tool and what it needs, unpacked and installed.
tool_needs=500000000
if [ "$(stat -c %d "$(existing "$mirror")")" = "$(stat -c %d "$(existing "$target")")" ]; then
    tool_needs=$((tool_needs + needed))
fi
[ -f "$target/.installed" ] || require_space "$target" "$tool_needs"

say "checking the bundle / 번들 확인 중: $id"
bad=''
fact part >"$temporary/parts"
while read -r sha256 size file; do
    real=$(stat -c %s "$file" 2>/dev/null || echo 0)
    if [ "$real" != "$size" ]; then
        say "$file is truncated or missing: it has $real bytes, $size are expected"
        bad="$bad $file"
    elif ! printf '%s  %s\n' "$sha256" "$file" | sha256sum --check --strict --status; then
        say "$file is damaged: its sha256 is not $sha256"
        bad="$bad $file"
    fi
done <"$temporary/parts"
[ -z "$bad" ] || fail "parts of the bundle are bad:$bad" "only these have to be carried again:$bad"

# ---- the tool ------------------------------------------------------------------------------------------------------

venv=$target/.venv
tool=$(grep '^file .* rtinfra-[^ ]*\.tar$' "$manifest")
wheels=$(grep '^wheel ' "$manifest" || true)
installed=$(printf '%s\n%s\n' "$tool" "$wheels" | cut -d ' ' -f 1,2 | sha256sum | cut -d ' ' -f 1)

# Options that keep apt away from everything this computer is configured with, and from the network.
private_apt() {
    apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root \
        -o APT::Install-Recommends=false -o DPkg::Lock::Timeout=300 -o DPkg::Options::=--force-confold "$@"
}

# Contents of the bundle, listed one sha256 a line, into $work/contents; a difference leaves some to the pool.
unpack() {
    while read -r sha256; do
        if grep -q "^[a-z]* $sha256 [0-9]* inside " "$manifest"; then
            echo "contents/$sha256" >>"$work/inside"
        elif ! cp "$mirror/pool/$(printf %.2s "$sha256")/$sha256" "$work/contents/$sha256" 2>/dev/null; then
            fail "this bundle only brings what is new since $(fact base), and that is not here" \
                "bring in that one first, or a full bundle"
        fi
    done
    # Every part is read to its end, so that no program is stopped in the middle of a pipe.
    cut -d ' ' -f 3 "$temporary/parts" | xargs cat | tar -x -f - -C "$work" --no-same-owner -T "$work/inside"
    # A link would lead to what can be exchanged after it was compared.
    [ -z "$(find "$work/contents" -mindepth 1 ! -type f)" ] ||
        fail "contents in the bundle are links" "do not use this bundle; find out who made it"
    (cd "$work/contents" && for file in *; do printf '%s  %s\n' "$file" "$file"; done | sha256sum --check --quiet) ||
        fail "contents in the bundle are not what was locked: they are named above" \
            "do not use this bundle; have it made again"
}

install_tool() {
    work=$target/.install
    rm -rf "$work"
    mkdir -p "$work/contents" "$work/lists/partial" "$work/cache/archives/partial" "$work/wheels" "$work/tool"

    packages=''
    for package in $(fact packages); do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
        [ "$state" = installed ] || packages="$packages $package"
    done
    printf '%s\n%s\n' "$tool" "$wheels" | cut -d ' ' -f 2 | sort -u >"$work/wanted"
    if [ -n "$packages" ]; then
        say "installing Debian packages / 패키지 설치 중:$packages"
        # What an interrupted call left half done.
        dpkg --configure -a >&2
        cp "$copy/Packages" "$work/Packages"
        echo "deb [trusted=yes] copy:$work ./" >"$work/sources.list"
        private_apt update --error-on=any >&2
        # shellcheck disable=SC2086  # a list of words
        private_apt install --yes --fix-broken --print-uris $packages >"$work/uris" ||
            fail "the packages of the bundle do not fit those of this computer: apt says why above" \
                "use a freshly installed Debian $suite, or have the lock made again"
        sed -n "s|^'copy:.*/contents/\([0-9a-f]*\)'.*|\1|p" "$work/uris" >>"$work/wanted"
    fi
    unpack <"$work/wanted"
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive private_apt install --yes --fix-broken $packages >&2
    fi

    say "installing rtinfra / rtinfra 설치 중: $target"
    tar -x -f "$work/contents/$(echo "$tool" | cut -d ' ' -f 2)" -C "$work/tool" --no-same-owner
    new=$work/tool
    [ -f "$new/pyproject.toml" ] || new=$(dirname "$new"/*/pyproject.toml)
    put_files "$new"
    printf '%s\n' "$wheels" | while read -r _ sha256 _ _ name; do
        [ -z "$sha256" ] || mv "$work/contents/$sha256" "$work/wheels/$name"
    done
    python3 -m venv --clear "$venv"
    # --isolated: neither the environment nor configuration files lead pip anywhere else. --no-compile: Python does so
    # for what is used, which is a small part.
    "$venv/bin/python" -m pip --isolated --quiet --disable-pip-version-check --no-cache-dir install --no-compile \
        --no-index --find-links "$work/wheels" --only-binary :all: --require-hashes -r "$target/requirements/runtime.txt" >&2
    # rtinfra runs from its folder, where its settings and templates are: no building, so nothing that builds is needed.
    echo "$target" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rtinfra.pth"
    printf '#!%s\nfrom rtinfra.cli import app\n\napp()\n' "$venv/bin/python" >"$venv/bin/rtinfra"
    chmod 755 "$venv/bin/rtinfra"
    mkdir -p /usr/local/bin
    # So that rtinfra is typed without a path, and finds the mirror without being told. Others' files stay.
    for link in "$mirror $target/.mirror" "$venv/bin/rtinfra /usr/local/bin/rtinfra"; do
        if [ ! -e "${link#* }" ] || [ -L "${link#* }" ]; then ln -sfn "${link% *}" "${link#* }"; fi
    done
    rm -rf "$work"
    # Last, and only when all of the above is on the disk: a power cut must not leave a mark without what it marks, nor
    # an empty one, which would mean to install everything once more.
    echo "$installed" >"$target/.installed.new"
    sync
    mv "$target/.installed.new" "$target/.installed"
    sync "$target"
}

# The files of the tool from the folder $1. What was changed here in group_data/ and inventory/ stays: the new file is
# next to it as .new. Files of an earlier version that are no more are removed.
put_files() {
    (cd "$1" && find . -type f -o -type l | sort) >"$work/new-files"
    touch "$target/.files"
    while read -r file; do
        mkdir -p "$(dirname "$target/$file")"
        name=$file
        case $file in
        ./group_data/* | ./inventory/*)
            if [ -f "$target/$file" ] && ! cmp -s "$target/$file" "$1/$file" &&
                ! grep -qxF "$(sha256sum <"$target/$file" | cut -d ' ' -f 1)  $file" "$target/.files"; then
                say "kept, because it was changed here: $target/$file (the new one: $file.new)"
                name=$file.new
            fi
            ;;
        esac
        cp -P -p --remove-destination "$1/$file" "$target/$name"
    done <"$work/new-files"
    while read -r sha256 file; do
        if ! grep -qxF "$file" "$work/new-files" && [ -f "$target/$file" ] &&
            [ "$(sha256sum <"$target/$file" | cut -d ' ' -f 1)" = "$sha256" ]; then
            rm "$target/$file"
        fi
    done <"$target/.files"
    (cd "$1" && find . -type f -exec sha256sum {} +) >"$target/.files.new"
    mv "$target/.files.new" "$target/.files"
}

mkdir -p "$target" "$mirror"
if [ "$(cat "$target/.installed" 2>/dev/null)" = "$installed" ] && [ -x "$venv/bin/rtinfra" ]; then
    say "this rtinfra is installed already / 이미 설치되어 있습니다: $target"
else
    install_tool
fi

# ---- import --------------------------------------------------------------------------------------------------------

RTINFRA_MIRROR_DIR="$mirror" "$venv/bin/rtinfra" mirror import "$bundle" --key "$number"
cat >&2 <<END

Done. Offer it to the network with:
완료되었습니다. 다음 명령으로 네트워크에 제공하십시오:

    rtinfra mirror publish

END
