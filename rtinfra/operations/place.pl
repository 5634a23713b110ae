# Puts files and folders in place for root, also where another account can write: names there are its words, not ours.
# Since perl has no openat, it stands in a folder while it works on it: every folder of a path is opened by its one name
# from the folder before it (O_NOFOLLOW), entered by that handle (fchdir) and kept, and files are opened, renamed and
# removed by their last name alone. Nothing that is renamed or linked meanwhile leads elsewhere, as a check of the path
# beforehand could not promise. A link on the way, such as /lib, is followed only where none but root could have laid it.
#
#     sync STAGE PREVIOUS   what STAGE/manifest says, see files.py; what a unit ran with is kept in PREVIOUS
#     copy                  pairs on standard input, `from TAB to`; an empty `from` removes
use strict;
use Errno qw(ELOOP ENOENT ENOTDIR);
use Fcntl qw(:DEFAULT :mode);
use IO::Handle;

my $links_at_most = 40;
my (@new, $placed, %entered);

sub refuse { print STDERR "rtinfra: @_\n"; exit 1 }

# All that is new goes away again when a run ends before its first rename.
END {
    if (!$placed) {
        for (@new) { unlink $_->{beside} if chdir $_->{folder} }
    }
}

sub enter { chdir $_[0] or refuse("a folder cannot be entered: $!") }

# Whether none but root and we could have put a name into the folder that we are in.
sub is_ours {
    my @is = stat "." or refuse("a folder cannot be looked at: $!");
    return ($is[4] == 0 || $is[4] == $>) && !($is[2] & S_IWOTH) && (!($is[2] & S_IWGRP) || $is[5] == 0);
}

# In a sticky folder of root's anybody makes names, and nobody replaces those of others.
sub is_sticky {
    my @is = stat "." or refuse("a folder cannot be looked at: $!");
    return ($is[4] == 0 || $is[4] == $>) && $is[2] & S_ISVTX;
}

# The handle of a folder, undef when it is not there. With $make what is missing is made.
sub folder {
    my ($path, $make) = @_;
    return $entered{$path} if $entered{$path};
    # $ours: none but root could have exchanged one of the folders so far; $at: where we are, for people.
    my ($links, $ours, $at) = (0, 1, "");
    my @rest = split m{/}, $path;
    chdir "/" or refuse("/ cannot be entered: $!");
    while (@rest) {
        my $name = shift @rest;
        next if $name eq "" || $name eq ".";
        $at = "$at/$name";
        my $next;
        my $is_made = 0;
        if (!sysopen $next, $name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) {
            my $why = $!;
            if ($why == ENOENT) {
                return undef if !$make;
                $is_made = mkdir $name, 0755;
                $is_made || $!{EEXIST} or refuse("$path cannot be made: $!");
                sysopen $next, $name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW or refuse("$at cannot be opened: $!");
            } elsif (($why == ELOOP || $why == ENOTDIR) && defined(my $to = readlink $name)) {
                $ours && is_ours() or refuse(
                    "$at is a symbolic link in a folder that others than root can write: nothing is put behind it, "
                    . "see who made it, and remove it");
                ++$links <= $links_at_most or refuse("$path leads through too many symbolic links");
                unshift @rest, split m{/}, $to;
                $at = $at =~ s{/[^/]*$}{}r;
                if ($to =~ m{^/}) { ($ours, $at) = (1, ""); chdir "/" or refuse("/ cannot be entered: $!") }
                next;
            } elsif ($why == ENOTDIR) {
                refuse("$at exists and is not a directory");
            } else {
                refuse("$at cannot be opened: $why");
            }
        }
        $ours &&= is_ours() || is_sticky();
        enter($next);
        # umask is strict here.
        $is_made and chmod 0755, $next;
    }
    sysopen my $here, ".", O_RDONLY | O_DIRECTORY or refuse("$path cannot be opened: $!");
    return $entered{$path} = $here;
}

# Folder and last name of a path.
sub parts { return $_[0] =~ m{^(/.*)?/([^/]+)$} ? ($1 // "/", $2) : refuse("$_[0] is no path of a file") }

sub number {
    my ($name, $found) = @_;
    return $name =~ /^[0-9]+$/ ? $name : defined $found ? $found : refuse("there is no user or group $name here");
}

# Mode and owner of an open file or folder.
sub give {
    my ($place, $path, $mode, $owner, $group) = @_;
    chown number($owner, scalar getpwnam $owner), number($group, scalar getgrnam $group), $place
        or refuse("the owner of $path cannot be changed: $!");
    chmod oct $mode, $place or refuse("the mode of $path cannot be changed: $!");
}

sub flush {
    my ($path, $file) = @_;
    $file->sync or refuse("$path cannot be brought to the disk: $!");
}

# A file that is to become $path lies beside it, under a name that is always the same: a run that is cut off leaves it, the
# next one writes it anew. It is made, never opened (O_EXCL), so what somebody lays there is refused and not written to.
sub beside {
    my ($path) = @_;
    my ($parent, $name) = parts($path);
    my $new = { path => $path, parent => $parent, name => $name, beside => ".rtinfra-new.$name" };
    $new->{folder} = folder($parent, 1);
    enter($new->{folder});
    unlink $new->{beside};
    return $new;
}

# Content, mode and owner of a new file come from $from, an open file.
sub write_new {
    my ($from, $new, @owned) = @_;
    my $path = $new->{path};
    sysopen my $to, $new->{beside}, O_WRONLY | O_CREAT | O_EXCL, 0600
        or refuse("$new->{parent}/$new->{beside} cannot be written: $!");
    push @new, $new;
    $new->{file} = $to;
    binmode $to;
    binmode $from;
    local $/ = \65536;
    while (my $piece = <$from>) { print $to $piece or refuse("$path cannot be written: $!") }
    $from->error and refuse("what is to become $path cannot be read: $!");
    $to->flush or refuse("$path cannot be written: $!");
    give($to, $path, @owned);
}

# All that is new is on the disk before the first rename, and the folders are after the last.
sub put_in_place {
    my @gone = @_;
    my %parents;
    for (@new) { flush($_->{path}, $_->{file}) if $_->{file} }
    for (@new) {
        enter($_->{folder});
        rename $_->{beside}, $_->{name} or refuse("$_->{path} cannot be put in place: $!");
        $parents{$_->{parent}} = $_->{folder};
    }
    $placed = 1;
    for (@gone) {
        my ($parent, $name) = parts($_);
        my $folder = folder($parent) or next;
        enter($folder);
        unlink $name or $! == ENOENT or refuse("$_ cannot be removed: $!");
        $parents{$parent} = $folder;
    }
    for (sort keys %parents) { flush($_, $parents{$_}) }
}

# A copy with mode, owner and time of a file, or of a link as a link; 0 when neither is there. A pipe is neither.
sub copy {
    my ($from, $to) = @_;
    my ($parent, $name) = parts($from);
    my $folder = folder($parent) or return 0;
    enter($folder);
    if (sysopen my $file, $name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) {
        my @is = stat $file;
        S_ISREG($is[2]) or return 0;
        my $new = beside($to);
        write_new($file, $new, sprintf("%o", S_IMODE($is[2])), $is[4], $is[5]);
        utime $is[8], $is[9], $new->{file};
        return 1;
    }
    my $target = readlink $name;
    defined $target or return 0;
    my $new = beside($to);
    symlink $target, $new->{beside} or refuse("$to cannot be written: $!");
    push @new, $new;
    return 1;
}

# What a unit ran with until now, for the case that it does not start with the new files. Not overwritten when it is
# there already: then the last restart never happened, and what is kept is the last that worked.
sub keep {
    my ($previous, $unit, $path) = @_;
    my $place = "$previous/$unit";
    my $folder = folder($place, 1);
    enter($folder);
    if (open my $paths, "<", "paths") { grep { $_ eq "$path\n" } <$paths> and return }
    copy($path, "$place/" . $path =~ tr{/}{:}r);
    put_in_place();
    @new = ();
    $placed = 0;
    enter($folder);
    open my $paths, ">>", "paths" or refuse("$place/paths cannot be written: $!");
    print $paths "$path\n" or refuse("$place/paths cannot be written: $!");
    close $paths or refuse("$place/paths cannot be written: $!");
}

my ($what, $stage, $previous) = @ARGV;
my @gone;
if ($what eq "sync") {
    my @lines;
    open my $manifest, "<", "$stage/manifest" or refuse("$stage/manifest: $!");
    while (<$manifest>) { chomp; push @lines, [split /\t/] }
    for (@lines) { keep($previous, $_->[1], $_->[2]) if $_->[0] eq "keep" }
    for (@lines) {
        my ($kind, $path, @owned) = @$_;
        if ($kind eq "directory") {
            give(folder($path, 1), $path, @owned);
        } elsif ($kind eq "file") {
            open my $from, "<", "$stage/root$path" or refuse("$stage/root$path: $!");
            write_new($from, beside($path), @owned);
        } elsif ($kind eq "absent") {
            push @gone, $path;
        }
    }
} elsif ($what eq "copy") {
    while (<STDIN>) {
        chomp;
        my ($from, $to) = split /\t/;
        if ($from eq "") { push @gone, $to } else { copy($from, $to) or refuse("$from is not there to be copied") }
    }
}
put_in_place(@gone);
