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

# What a unit ran with until now, for the case that it does not start with the new files. Not overwritten when it
# is there already: then the last restart never happened, and what is kept is the last that worked.
while IFS="$tab" read -r kind unit path; do
    [ "$kind" = keep ] || continue
    mkdir -p "$previous/$unit"
    ! grep -qsxF "$path" "$previous/$unit/paths" || continue
    name=$(printf '%s' "$path" | tr / :)
    if [ -f "$path" ]; then cp -a -- "$path" "$previous/$unit/$name"; fi
    printf '%s\n' "$path" >>"$previous/$unit/paths"
done <"$stage/manifest"

# One program for all files, since starting four for each took most of the time of a first deploy. All that is new lies
# beside its place, with its mode and owner, and is on the disk before the first rename; nothing follows a link that is in
# the way. A run that is cut off leaves such files; the next one writes the same names.
perl -e '
    use strict;
    use Fcntl;
    use IO::Handle;
    my $stage = shift;
    my (@new, @gone, %parents, $placed);

    sub refuse { print STDERR "rtinfra: @_\n"; exit 1 }
    END { $placed or unlink map { $_->[0] } @new }

    sub number {
        my ($name, $found) = @_;
        return $name =~ /^[0-9]+$/ ? $name : defined $found ? $found : refuse("there is no user or group $name here");
    }

    # Mode and owner of an open file or a folder.
    sub give {
        my ($place, $path, $mode, $owner, $group) = @_;
        chown number($owner, scalar getpwnam $owner), number($group, scalar getgrnam $group), $place
            or refuse("the owner of $path cannot be changed: $!");
        chmod oct $mode, $place or refuse("the mode of $path cannot be changed: $!");
    }

    sub folder {
        my $path = shift;
        return if $path eq "" || -d $path;
        refuse("$path exists and is not a directory") if -e $path;
        folder($path =~ s{/[^/]*$}{}r);
        mkdir $path, 0755 or refuse("$path cannot be made: $!");
        chmod 0755, $path;
    }

    sub flush {
        my ($path, $file) = @_;
        $file or open $file, "<", $path or refuse("$path cannot be opened: $!");
        $file->sync or refuse("$path cannot be brought to the disk: $!");
    }

    open my $manifest, "<", "$stage/manifest" or refuse("$stage/manifest: $!");
    while (<$manifest>) {
        chomp;
        my ($kind, $path, @owned) = split /\t/;
        my ($parent, $name) = $path =~ m{^(.*)/([^/]*)$} or next;
        if ($kind eq "directory") {
            folder($path);
            give($path, $path, @owned);
        } elsif ($kind eq "file") {
            folder($parent);
            my $beside = "$parent/.rtinfra-new.$name";
            unlink $beside;
            open my $from, "<:raw", "$stage/root$path" or refuse("$stage/root$path: $!");
            sysopen my $to, $beside, O_WRONLY | O_CREAT | O_EXCL, 0600 or refuse("$beside cannot be written: $!");
            push @new, [$beside, $path, $to];
            binmode $to;
            local $/ = \65536;
            while (my $piece = <$from>) { print $to $piece or refuse("$beside cannot be written: $!") }
            $to->flush or refuse("$beside cannot be written: $!");
            give($to, $path, @owned);
            $parents{$parent || "/"} = 1;
        } elsif ($kind eq "absent") {
            push @gone, $path;
            $parents{$parent || "/"} = 1;
        }
    }
    for (@new) { flush($_->[0], $_->[2]) }
    for (@new) { rename $_->[0], $_->[1] or refuse("$_->[1] cannot be put in place: $!") }
    $placed = 1;
    for (@gone) { unlink or !-l && !-e or refuse("$_ cannot be removed: $!") }
    for (sort keys %parents) { flush($_) }
' -- "$stage"

while IFS="$tab" read -r kind name command; do
    [ "$kind" = action ] || continue
    sh -c "$command" </dev/null || fail "the files are in place, but '$name' failed ($command); the next run tries it again"
    # What it wrote has to be there when the power goes and the marker is not.
    sync -f -- "$state"
    rm -f "$pending/$name" "$lasting/$name"
done <"$stage/manifest"
