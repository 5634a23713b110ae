"""Texts of hosts on the operator's terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return a text in which nothing steers a terminal: what is not printable is shown as its escape.

    Line breaks and tabs stay. With the rest, a name or a journal's line could clear the screen, change what stands
    above it, or make the terminal type for whoever looks.
    """
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)
