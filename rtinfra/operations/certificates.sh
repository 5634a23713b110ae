# Makes the mirror's certificates: $1 `authority` for both or `server`, $2 names of the server as openssl writes them,
# $3 beginning, $4 and $5 ends of authority and server (YYYYMMDDHHMMSSZ), $6 directory, $7 marker of a restart.
# Keys are made once and stay: whoever trusts the authority of today trusts its renewal too.
set -eu
umask 077
what=$1 names=$2 begin=$3 authority_end=$4 server_end=$5 directory=$6 marker=$7
install -d -m 0755 -- "$directory"
cd "$directory"
# One kept from a run that was cut off is of no use to anybody.
rm -rf .new.*
work=$(mktemp -d "$directory/.new.XXXXXXXX")
trap 'rm -rf "$work"' EXIT

cat >"$work/openssl.cnf" <<END
[req]
distinguished_name = subject
[subject]
[ca]
default_ca = here
[here]
database = $work/index
new_certs_dir = $work
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $names
END
: >"$work/index"

put() {
    sync -- "$work/$1"
    mv -fT -- "$work/$1" "$directory/$1"
    sync -- "$directory"
}

key() {
    [ -s "$1.key" ] && return
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1.key" 2>"$work/said"
    put "$1.key"
}

# $1 who, $2 subject, $3 end; further arguments say who signs.
certificate() {
    who=$1 subject=$2 end=$3
    shift 3
    key "$who"
    openssl req -new -config "$work/openssl.cnf" -key "$who.key" -subj "/CN=$subject" -out "$work/$who.csr"
    openssl ca -batch -notext -config "$work/openssl.cnf" -extensions "$who" -startdate "$begin" -enddate "$end" \
        -in "$work/$who.csr" -out "$work/$who.crt" "$@" 2>"$work/said" || {
        cat "$work/said" >&2
        exit 1
    }
    chmod 0644 "$work/$who.crt"
}

# The server reads its certificate at its start only.
mkdir -p "${marker%/*}"
: >"$marker"
if [ "$what" = authority ]; then
    certificate authority 'rtinfra mirror' "$authority_end" -selfsign -keyfile authority.key
    put authority.crt
fi
certificate server 'rtinfra mirror server' "$server_end" -keyfile authority.key -cert authority.crt
put server.crt
