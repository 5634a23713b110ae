# How GRUB reads a line of its language, and what its command linux makes of it: a word of grub.cfg is not the word that the
# kernel gets. One reader for the program on the host (boot.sh) and for who looks at hosts (rtinfra/facts/boot.py), which
# is why no apostrophe may stand in it. Sources: GRUB manual "Shell-like scripting", grub-core/script/yylex.l, and
# grub-core/lib/cmdline.c of GRUB 2.06 and 2.12.
#
#   lines GRUB.CFG GRUBENV   for each line that loads a kernel: image, command line, and a field name=value for every value
#                            that a variable on it may have; fields are separated by tabs
#   menu FILE...             what a menu is made of, a line each: defaults, heads, ends, and lines that load a kernel with
#                            the command line that it gets
#   words                    of standard input, the arguments of a command linux: the command line that the kernel gets
#   text                     of standard input, a command line: arguments that make GRUB pass exactly that, or exit code 255
use strict;

# Words of a command, each a list of pieces [text, is it a variable, is it quoted]; up to the end of the command.
sub grub_words {
    my ($text) = @_;
    my (@words, $word);
    for ($text) {
        while (!/\G\z/gc) {
            if (/\G[ \t]+/gc) { push @words, $word if $word; undef $word; next }
            if (/\G\\\n/gc) { next }
            if (!$word && /\G#/gc or /\G[;&|<>\n]/gc or !$word && /\G[{}]/gc) { last }
            $word //= [];
            if (/\G\\(.)/gcs) { push @$word, [$1] }
            elsif (/\G\x27([^\x27]*)\x27/gc) { push @$word, [$1] }
            elsif (/\G"((?:[^"\\]|\\.)*)"/gcs) { push @$word, grub_quoted("$1") }
            elsif (/\G\$(?:\{([A-Za-z_]\w*|[0-9?*@#])\}|([A-Za-z_]\w*|[0-9?*@#]))/gc) { push @$word, [$1 // $2, 1] }
            else { /\G(.)/gcs; push @$word, [$1] }
        }
    }
    push @words, $word if $word;
    return @words;
}

# Pieces of a text in double quotes, where a backslash escapes three characters only.
sub grub_quoted {
    my ($text) = @_;
    my @pieces = [""];
    for ($text) {
        while (!/\G\z/gc) {
            if (/\G\\([\$"\\])/gc) { push @pieces, [$1] }
            elsif (/\G\\\n/gc) { }
            elsif (/\G\$(?:\{([A-Za-z_]\w*|[0-9?*@#])\}|([A-Za-z_]\w*|[0-9?*@#]))/gc) { push @pieces, [$1 // $2, 1, 1] }
            else { /\G(.)/gcs; push @pieces, [$1] }
        }
    }
    return @pieces;
}

# What the command linux passes on of one argument: one with a blank in quotes, others quotes and backslashes escaped, also
# before an x and two digits (seen with 2.06 of Debian 12 and 2.12 of Debian 13).
sub kernel_word {
    my ($word) = @_;
    my $space = $word =~ / /;
    $word =~ s/([\\\x27"])/\\$1/g;
    return $space ? "\"$word\"" : $word;
}

# The command line of arguments, with ${NAME} for variables within a word; then the names of all variables.
sub kernel_words {
    my ($text) = @_;
    my (@line, @names);
    for my $word (grub_words($text)) {
        push @names, map { $_->[0] } grep { $_->[1] } @$word;
        # An unquoted variable alone is any number of words, none among them.
        next if @$word == 1 && $word->[0][1] && !$word->[0][2];
        push @line, kernel_word(join "", map { $_->[1] ? "\${$_->[0]}" : $_->[0] } @$word);
    }
    return join(" ", @line), @names;
}

# Arguments for a command line as the kernel has it; undefined when GRUB cannot pass that on.
sub grub_text {
    my ($line) = @_;
    my @arguments;
    while ($line =~ /\G *("(?:[^"\\]|\\.)*"(?= |\z)|[^ ]+)/gc) {
        my $word = $1;
        $word =~ s/^"(.*)"\z/$1/s if $word =~ / /;
        $word =~ s/\\([\\\x27"])/$1/g;
        $word =~ s/([^A-Za-z0-9_.,:=\/+%@^\x80-\xff-])/\\$1/g;
        push @arguments, $word;
    }
    my $text = join " ", @arguments;
    return (kernel_words($text))[0] eq join(" ", split / +/, $line) ? $text : undef;
}

# Every value that GRUB may give a variable: by any statement of the menu, or from its environment block.
sub grub_values {
    my ($name, $menu, $environment) = @_;
    my %values;
    while ($menu =~ /(?:^|[;\s])set[ \t]+(?:\x27|")?\Q$name\E=([^\n]*)/g) {
        my ($value) = grub_words("x$1");
        $values{substr join("", map { $_->[1] ? "\${$_->[0]}" : $_->[0] } @$value), 1} = 1;
    }
    while ($environment =~ /^\Q$name\E=(.*)$/mg) { $values{$1} = 1 }
    return sort keys %values;
}

sub contents {
    my ($path) = @_;
    open my $file, "<", $path or return "";
    local $/;
    return <$file> // "";
}

sub main {
    my ($verb, @files) = @_;
    if ($verb eq "lines") {
        my ($menu, $environment) = map { contents($_) } @files;
        while ($menu =~ /^[ \t]*(?:if[ \t]+)?linux(?:16|efi)?[ \t]+(\S+)[ \t]*((?:[^\n\\]|\\.)*)/msg) {
            my ($image, $arguments) = ($1, $2);
            my ($line, @names) = kernel_words($arguments);
            my %seen;
            my @maybe = map { my $name = $_; map { "$name=$_" } grub_values($name, $menu, $environment) } grep { !$seen{$_}++ } @names;
            print join("\t", $image, $line, @maybe), "\n";
        }
        return;
    }
    if ($verb eq "menu") {
        for (map { split /\n/, contents($_) } @files) {
            if (/^[ \t]*(?:if[ \t]+)?linux(?:16|efi)?[ \t]+(\S+)[ \t]*(.*)/) { print "linux $1 ", (kernel_words($2))[0], "\n" }
            elsif (/^[ \t]*(?:set default=|menuentry |submenu |\})/) { print "$_\n" }
        }
        return;
    }
    local $/;
    my $text = <STDIN> // "";
    chomp $text;
    $text =~ s/\n+\z//;
    my $said = $verb eq "words" ? (kernel_words($text))[0] : grub_text($text);
    defined $said or die "GRUB cannot pass on this command line as it is: $text\n";
    print "$said\n";
}

main(@ARGV);
