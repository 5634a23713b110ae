# Builds a virtual environment beside the one in use and switches over when it works. Standard input: requirements with
# hashes. $1 directory, $2 name of the new environment, $3 cache of wheels, $4 module that must answer --help, $5 `index`
# when third-party wheels come from the index of the host's pip, $6... wheels of the cache that are still wanted.
set -eu
umask 022
directory=$1 name=$2 cache=$3 check=$4 source=$5
shift 5
new=$directory/$name
mkdir -p "$directory"
# What a run that was cut off left behind is no environment.
rm -rf "$new"
python3 -m venv "$new"
cat >"$new/requirements.txt"
[ "$source" = index ] || set -- "$@" --no-index
# Only options of pip are left in $@ below; names of wheels are told apart by their ending.
wanted=" " options=
for word; do case $word in *.whl) wanted="$wanted$word " ;; *) options="$options $word" ;; esac; done
# shellcheck disable=SC2086 # words without blanks
"$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
    --only-binary :all: --find-links "$cache" $options --requirement "$new/requirements.txt"
"$new/bin/python" -I -m "$check" --help >/dev/null
sync -f "$new"
ln -sfn "$name" "$directory/.current"
mv -fT "$directory/.current" "$directory/current"
sync -f "$directory"
for other in "$directory"/*; do
    case ${other##*/} in current | "$name") ;; *) rm -rf "$other" ;; esac
done
for wheel in "$cache"/*.whl; do
    case $wanted in *" ${wheel##*/} "*) ;; *) rm -f "$wheel" ;; esac
done
